/* SPDX-License-Identifier: MIT
 * mandelbrot.c - draws the Mandelbrot set: mandelbrot [FILE.png [WIDTHxHEIGHT [WORKERS]]]
 *
 * Idea: a row in the middle takes many times as long as one at the edge, so equal parts would
 * leave most workers waiting for one. yoke_for hands out rows as they are asked for: there is no
 * part size to guess.
 */
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <yoke/yoke.h>

enum { STEPS = 256, SIZE_MAX_PIXELS = 32768 };

struct picture {
    unsigned width, height;
    unsigned char *pixels; /* rows of red, green, blue */
};

/* How many steps until z leaves the circle of radius 2. */
static unsigned steps_at(double x, double y)
{
    double re = 0, im = 0;
    unsigned steps = 0;
    for (; steps < STEPS && re * re + im * im < 4; steps++) {
        const double next = re * re - im * im + x;
        im = 2 * re * im + y;
        re = next;
    }
    return steps;
}

/* Rows begin to end - 1. Each is written by one worker alone, so nothing is locked. */
static int draw_rows(yoke_task *task, size_t begin, size_t end, void *unused)
{
    const struct picture *picture = yoke_task_context(task);
    const double scale = 3.4 / picture->width;
    (void)unused;
    for (size_t row = begin; row < end; row++) {
        unsigned char *pixel = picture->pixels + row * picture->width * 3;
        const double y = ((double)row - picture->height / 2.0) * scale;
        for (unsigned column = 0; column < picture->width; column++, pixel += 3) {
            const double t = steps_at(column * scale - 2.35, y) / (double)STEPS;
            pixel[0] = (unsigned char)(255 * 9 * (1 - t) * t * t * t);
            pixel[1] = (unsigned char)(255 * 15 * (1 - t) * (1 - t) * t * t);
            pixel[2] = (unsigned char)(255 * 8.5 * (1 - t) * (1 - t) * (1 - t) * t);
        }
    }
    return 0;
}

static double seconds_to_draw(const struct picture *picture, int kind, unsigned workers)
{
    const yoke_pool_config config = {.size = sizeof config, .kind = kind, .workers = workers};
    const yoke_options options = {.size = sizeof options, .context = picture};
    yoke_pool *pool = NULL;
    int rc = yoke_pool_create(&config, &pool);
    const int64_t begin_ns = yoke_now_ns();
    rc = rc == 0 ? yoke_for(pool, draw_rows, picture->height, &options) : rc;
    const double seconds = (double)(yoke_now_ns() - begin_ns) / 1e9;
    if (rc != 0) {
        fprintf(stderr, "mandelbrot: %s\n", yoke_strerror(rc));
        exit(1);
    }
    yoke_pool_destroy(pool, YOKE_FOREVER);
    return seconds;
}

static int write_png(const struct picture *picture, const char *name)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = picture->width,
                       .height = picture->height,
                       .format = PNG_FORMAT_RGB};
    if (png_image_write_to_file(&image, name, 0, picture->pixels, 0, NULL))
        return 0;
    fprintf(stderr, "mandelbrot: %s: %s\n", name, image.message);
    return 1;
}

int main(int argc, char **argv)
{
    struct picture picture = {.width = 1200, .height = 800};
    const unsigned workers = argc > 3 ? (unsigned)atoi(argv[3]) : yoke_cpu_count();
    if ((argc > 2 && sscanf(argv[2], "%ux%u", &picture.width, &picture.height) != 2) ||
        picture.width - 1 >= SIZE_MAX_PIXELS || picture.height - 1 >= SIZE_MAX_PIXELS ||
        workers - 1 >= 1024 ||
        !(picture.pixels = malloc((size_t)picture.width * picture.height * 3))) {
        fprintf(stderr, "usage: mandelbrot [FILE.png [WIDTHxHEIGHT [WORKERS]]]\n");
        return 2;
    }
    const double alone = seconds_to_draw(&picture, YOKE_SERIAL, 1);
    const double together = seconds_to_draw(&picture, YOKE_THREADS, workers);
    printf("%ux%u: %.3f s alone, %.3f s with %u workers: %.2f times as fast\n", picture.width,
           picture.height, alone, together, workers, alone / together);
    const int rc = write_png(&picture, argc > 1 ? argv[1] : "mandelbrot.png");
    free(picture.pixels);
    return rc;
}
