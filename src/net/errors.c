/* libuv's error numbers into this room's own, and their texts. */
#include "base/check.h"
#include "net/internal.h"

static const struct {
    const char *name;
    const char *text;
} statuses[] = {
#define NET_STATUS_ROW(name, text) {#name, text},
    NET_STATUS_MAP(NET_STATUS_ROW)
#undef NET_STATUS_ROW
};

enum { STATUS_COUNT = sizeof statuses / sizeof statuses[0] };

const char *net_status_text(enum net_status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].text : "unknown status";
}

const char *net_status_name(enum net_status status)
{
    return (unsigned)status < STATUS_COUNT ? statuses[status].name : "UNKNOWN";
}

static const struct {
    int uv;
    enum net_status status;
} translations[] = {
    {UV_EOF, NET_EOF},
    {UV_ECONNREFUSED, NET_REFUSED},
    {UV_ECONNRESET, NET_RESET},
    {UV_ECONNABORTED, NET_RESET},
    {UV_EPIPE, NET_RESET},
    {UV_ENOTCONN, NET_RESET},
    {UV_ETIMEDOUT, NET_TIMED_OUT},
    {UV_EHOSTUNREACH, NET_UNREACHABLE},
    {UV_ENETUNREACH, NET_UNREACHABLE},
    {UV_ENETDOWN, NET_UNREACHABLE},
    {UV_EAI_NONAME, NET_NO_NAME},
    {UV_EAI_NODATA, NET_NO_NAME},
    {UV_EAI_AGAIN, NET_NO_NAME},
    {UV_EAI_FAIL, NET_NO_NAME},
    {UV_EADDRINUSE, NET_IN_USE},
    {UV_EADDRNOTAVAIL, NET_NO_ADDRESS},
    {UV_EACCES, NET_DENIED},
    {UV_EPERM, NET_DENIED},
    {UV_EMFILE, NET_NO_FILES},
    {UV_ENFILE, NET_NO_FILES},
    {UV_ENOMEM, NET_NO_MEMORY},
    {UV_ENOBUFS, NET_NO_MEMORY},
    {UV_EAI_MEMORY, NET_NO_MEMORY},
    {UV_ECANCELED, NET_CANCELLED},
    {UV_EAI_CANCELED, NET_CANCELLED},
    {UV_EINVAL, NET_INVALID},
};

enum net_status net_status_of(int uv_status)
{
    if (uv_status >= 0) {
        return NET_OK;
    }
    for (size_t i = 0; i < sizeof translations / sizeof translations[0]; i++) {
        if (translations[i].uv == uv_status) {
            return translations[i].status;
        }
    }
    return NET_FAILED;
}
