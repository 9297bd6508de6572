/* plait.hpp's values: time spans, views of bytes, and what a message carries. */
#ifndef PLAIT_CPP_VALUE_HPP
#define PLAIT_CPP_VALUE_HPP

#include <plait/cpp/error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace plait
{

/* The library's version, "MAJOR.MINOR.PATCH". */
inline std::string_view version() noexcept
{
    return plait_version();
}

/* What a body holds, as its sender says; plait doesn't look. */
enum class Encoding : int { bytes = PLAIT_BYTES, utf8 = PLAIT_UTF8, json = PLAIT_JSON, array = PLAIT_ARRAY };

/* How a name is to be reached: as it can, by shared memory or not at all, by its Unix socket alone. */
enum class Transport : int {
    any = PLAIT_TRANSPORT_AUTO,
    shm = PLAIT_TRANSPORT_SHM,
    unix_socket = PLAIT_TRANSPORT_UNIX
};

/* A time span to wait: any std::chrono duration, rounded up to milliseconds. None at all, Timeout(), is the default of
 * whatever takes it; zero or less doesn't wait; milliseconds::max(), plait::forever, has no end. */
class Timeout
{
  public:
    constexpr Timeout() noexcept = default;
    template <class Rep, class Period>
    constexpr Timeout(std::chrono::duration<Rep, Period> span) noexcept : ms_(convert(span))
    {
    }
    /* As the C interface has it: 0 is the default, PLAIT_NOW, PLAIT_FOREVER. */
    constexpr std::int64_t count() const noexcept { return ms_; }

  private:
    template <class Rep, class Period>
    static constexpr std::int64_t convert(std::chrono::duration<Rep, Period> span) noexcept
    {
        using std::chrono::duration, std::chrono::milliseconds;
        if (!(span > span.zero())) return PLAIT_NOW; /* a NaN, too */
        if (duration<double, std::milli>(span).count() >= 9e18) return PLAIT_FOREVER;
        return std::chrono::ceil<milliseconds>(span).count();
    }
    std::int64_t ms_ = 0;
};
inline constexpr Timeout forever = std::chrono::milliseconds::max();

/* How long to spin before sleeping, in options: adaptive, never, or always that long. */
inline constexpr std::chrono::microseconds spin_adaptive{ PLAIT_SPIN_DEFAULT };
inline constexpr std::chrono::microseconds spin_never{ PLAIT_SPIN_NEVER };

namespace detail
{

/* Containers of bytes that lie in one piece, but not what is text already. */
template <class T>
using Element = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const T &>()))>>;
template <class T> inline constexpr bool is_text = std::is_convertible_v<const T &, std::string_view>;
template <class T, class = void> struct IsBytes : std::false_type {
};
template <class T>
struct IsBytes<T, std::void_t<Element<T>, decltype(std::size(std::declval<const T &>()))>>
    : std::bool_constant<!is_text<T> &&
                         (std::is_same_v<Element<T>, std::byte> || std::is_same_v<Element<T>, unsigned char> ||
                          std::is_same_v<Element<T>, char>)> {
};

} // namespace detail

/* A view of bytes that somebody else owns. */
class Bytes
{
  public:
    constexpr Bytes() noexcept = default;
    Bytes(const void *data, std::size_t size) noexcept : data_(static_cast<const std::byte *>(data)), size_(size) {}
    explicit Bytes(std::string_view text) noexcept : Bytes(text.data(), text.size()) {}
    /* std::vector<std::byte>, std::vector<std::uint8_t>, std::array, std::span, ... */
    template <class T, std::enable_if_t<detail::IsBytes<T>::value, int> = 0>
    Bytes(const T &container) noexcept : Bytes(std::data(container), std::size(container))
    {
    }
    const std::byte *data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    const std::byte *begin() const noexcept { return data_; }
    const std::byte *end() const noexcept { return data_ + size_; }
    const std::byte &operator[](std::size_t index) const noexcept { return data_[index]; } /* unchecked */
    std::string_view view() const noexcept { return { reinterpret_cast<const char *>(data_), size_ }; }

  private:
    const std::byte *data_ = nullptr;
    std::size_t size_ = 0;
};

/* What a message carries, borrowed until the function that takes it returns. Made from text (sent as UTF-8) or from
 * bytes; {body, Encoding::json} says it otherwise. */
class Body
{
  public:
    Body() noexcept = default;
    template <class T, std::enable_if_t<detail::is_text<T>, int> = 0>
    Body(const T &text, Encoding encoding = Encoding::utf8) : bytes_(std::string_view(text)), encoding_(encoding)
    {
    }
    template <class T, std::enable_if_t<std::is_convertible_v<const T &, Bytes>, int> = 0>
    Body(const T &bytes, Encoding encoding = Encoding::bytes) noexcept : bytes_(bytes), encoding_(encoding)
    {
    }
    Body(const void *data, std::size_t size) noexcept : bytes_(data, size) {}
    Body(std::nullptr_t) = delete; /* which a std::string_view would take for text */
    const void *data() const noexcept { return bytes_.data(); }
    std::size_t size() const noexcept { return bytes_.size(); }
    Encoding encoding() const noexcept { return encoding_; }

  private:
    Bytes bytes_{};
    Encoding encoding_ = Encoding::bytes;
};

namespace detail
{

/* What came, with its bytes: a handle of C's. Views of it live as long as it does, so a temporary gives none: text()
 * copies. Moved from, it is empty. */
template <class Handle, plait_bytes (*body)(const Handle *), void (*release)(Handle *)> class Received
{
  public:
    Bytes bytes() const &noexcept
    {
        const plait_bytes bytes = raw_ ? body(raw_.get()) : plait_bytes{ nullptr, 0 };
        return { bytes.data, bytes.size };
    }
    Bytes bytes() const && = delete;
    std::string_view view() const &noexcept { return bytes().view(); }
    std::string_view view() const && = delete;
    std::string text() const { return std::string(view()); }

  protected:
    explicit Received(Handle *raw) noexcept : raw_(raw) {}
    Received(Received &&) noexcept = default;
    Received &operator=(Received &&) noexcept = default;
    ~Received() = default;
    Owner<Handle, release> raw_;
};

} // namespace detail

} // namespace plait

#endif
