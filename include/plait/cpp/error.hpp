/* plait.hpp's errors: what fails throws plait::Error or a class derived from it. */
#ifndef PLAIT_CPP_ERROR_HPP
#define PLAIT_CPP_ERROR_HPP

#include <plait/plait.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace plait
{

/* CODE is the C interface's, a negative errno: error.code() == -EMSGSIZE. what() says what, where, and what to do. */
class Error : public std::runtime_error
{
  public:
    Error(int code, const std::string &text) : std::runtime_error(text), code_(code) {}
    int code() const noexcept { return code_; }

  private:
    int code_;
};

/* -ETIMEDOUT. */
class TimeoutError : public Error
{
  public:
    explicit TimeoutError(const std::string &text) : Error(-ETIMEDOUT, text) {}
};

/* -ECONNRESET: the other side is gone; a call may have run, what() says whether. */
class PeerDied : public Error
{
  public:
    explicit PeerDied(const std::string &text) : Error(-ECONNRESET, text) {}
};

/* -ENOENT: nobody serves this name. */
class NoSuchName : public Error
{
  public:
    explicit NoSuchName(const std::string &text) : Error(-ENOENT, text) {}
};

/* -EREMOTEIO: the handler failed; what() is its text, status() its number, from 1. */
class RemoteError : public Error
{
  public:
    RemoteError(std::uint32_t status, const std::string &text) : Error(-EREMOTEIO, text), status_(status) {}
    std::uint32_t status() const noexcept { return status_; }

  private:
    std::uint32_t status_;
};

/* What the other headers share; no part of the interface. */
namespace detail
{

/* STATUS is for -EREMOTEIO. */
[[noreturn]] inline void fail(int code, const std::string &text, std::uint32_t status = 0)
{
    switch (code) {
    case -ETIMEDOUT: throw TimeoutError(text);
    case -ECONNRESET: throw PeerDied(text);
    case -ENOENT: throw NoSuchName(text);
    case -EREMOTEIO: throw RemoteError(status, text);
    default: throw Error(code, text);
    }
}

/* Of a C function that this thread has called just now. */
inline int check(int result)
{
    if (result < 0) fail(result, plait_error_text());
    return result;
}

template <class Handle> Handle *check_open(Handle *handle, const char *what)
{
    if (handle == nullptr) fail(-EBADF, std::string("this ") + what + " was moved from");
    return handle;
}

/* A handle of C's that is closed with its owner. */
template <auto close> struct Close {
    template <class Handle> void operator()(Handle *handle) const noexcept { close(handle); }
};
template <class Handle, auto close> using Owner = std::unique_ptr<Handle, Close<close>>;

/* Options of C's, all of them at their defaults. Its macros do that with designators, which C++17 hasn't. */
template <class Options> Options defaults() noexcept
{
    Options options{};
    options.size = sizeof(options);
    return options;
}

/* For C's `interrupted`, whose context is the caller's function. */
inline int ask(void *context) noexcept
{
    return (*static_cast<const std::function<bool()> *>(context))();
}

/* TEXT as C takes it, which would silently end it at a NUL. */
inline const char *checked(const std::string &text)
{
    if (text.find('\0') != std::string::npos)
        fail(-EINVAL, std::string("'") + text.c_str() + "' is followed by a NUL byte: no name, URL or option has one");
    return text.c_str();
}

/* An option's text: "" is the default. */
inline const char *given(const std::string &text)
{
    return text.empty() ? nullptr : checked(text);
}

/* A name or URL as C takes it: the caller's own where that ends in a NUL, else a copy. */
class CString
{
  public:
    CString(const char *text) noexcept : text_(text) {}
    CString(const std::string &text) : text_(checked(text)) {}
    CString(std::string_view text) : copy_(std::make_unique<std::string>(text)), text_(checked(*copy_)) {}
    CString(const CString &) = delete;
    CString &operator=(const CString &) = delete;
    ~CString() = default;
    const char *get() const noexcept { return text_; }

  private:
    std::unique_ptr<std::string> copy_{}; /* made where it is needed: most names are literals */
    const char *text_;
};

} // namespace detail

} // namespace plait

#endif
