/* SPDX-License-Identifier: MIT
 * fixed.c - as itself.c, but linked to a fixed address (see Makefile).
 */
#include "itself.h"

int main(int argc, char **argv)
{
    return itself_main(argc, argv);
}
