/* SPDX-License-Identifier: MIT
 * fetch.c - downloads web pages, one thread for each: fetch URL...
 *
 * Idea: a download waits and does not compute, so there are as many threads as pages, not as CPUs.
 * Without arguments it fetches from a server of its own that takes 50 ms for each answer.
 */
#include "loopback.h"
#include <curl/curl.h>

enum { PAGES = 8 };

struct page {
    long status;
    curl_off_t bytes;
    double seconds;
    CURLcode code;
};

static size_t swallow(char *data, size_t size, size_t count, void *user)
{
    (void)data, (void)user;
    return size * count;
}

static int fetch(yoke_task *task, const void *in, void *out)
{
    (void)task;
    struct page *page = out;
    CURL *curl = curl_easy_init();
    curl_easy_setopt(curl, CURLOPT_URL, *(char *const *)in);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, swallow);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L); /* curl must not use signals in threads */
    page->code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &page->status);
    curl_easy_getinfo(curl, CURLINFO_SIZE_DOWNLOAD_T, &page->bytes);
    curl_easy_getinfo(curl, CURLINFO_TOTAL_TIME, &page->seconds);
    curl_easy_cleanup(curl);
    return page->code != CURLE_OK || page->status >= 400; /* this page failed, the others go on */
}

static int fetch_all(char **urls, size_t count)
{
    yoke_pool *pool = NULL;
    struct page *pages = calloc(count, sizeof *pages);
    const yoke_pool_config config = {
        .size = sizeof config, .kind = YOKE_THREADS, .workers = count < 64 ? (unsigned)count : 64};
    int rc = pages == NULL ? -ENOMEM : yoke_pool_create(&config, &pool);
    const int64_t start_ns = yoke_now_ns();
    if (rc == 0)
        rc = yoke_map(pool, fetch, urls, sizeof *urls, pages, sizeof *pages, count, NULL);
    double total = (double)(yoke_now_ns() - start_ns) / 1e9, sum = 0;
    for (size_t i = 0; i < count && (rc == 0 || rc == YOKE_ETASK); sum += pages[i++].seconds)
        printf("%3ld %7ld bytes %6.3f s  %s  %s\n", pages[i].status, (long)pages[i].bytes,
               pages[i].seconds, urls[i], pages[i].code ? curl_easy_strerror(pages[i].code) : "");
    printf("%.3f s in all; the times add up to %.3f s\n", total, sum);
    if (rc != 0)
        fprintf(stderr, "fetch: %s\n", yoke_strerror(rc));
    yoke_pool_destroy(pool, YOKE_FOREVER);
    free(pages);
    return rc;
}

int main(int argc, char **argv)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (argc > 1)
        return fetch_all(argv + 1, (size_t)argc - 1) == 0 ? 0 : 1;

    struct loopback server;
    char text[PAGES][64], *urls[PAGES];
    int rc = loopback_start(&server, 50);
    for (int i = 0; i < PAGES; i++) {
        snprintf(text[i], sizeof text[i], "http://127.0.0.1:%d/%d", server.port, 1000 * (i + 1));
        urls[i] = text[i];
    }
    rc = rc == 0 ? fetch_all(urls, PAGES) : rc;
    loopback_stop(&server);
    return rc == 0 ? 0 : 1;
}
