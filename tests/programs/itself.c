/* SPDX-License-Identifier: MIT
 * itself.c - a program whose pool runs the same program once more: its own functions are found,
 * also where it is linked to a fixed address (fixed.c is the same program, linked so).
 */
#include "itself.h"

int main(int argc, char **argv)
{
    return itself_main(argc, argv);
}
