/* plait.hpp's loans. */
#ifndef PLAIT_CPP_LOAN_HPP
#define PLAIT_CPP_LOAN_HPP

#include <plait/cpp/value.hpp>

namespace plait
{

namespace detail
{
class AnyRequest;
}

/* Memory for one large message, written where its receiver reads it; see <plait/loan.h>. From loan() of a Client, a
 * Request or a Publisher; sent by moving it into call(), send(), reply() and the like, which take it also when they
 * throw. Destroying it gives it back, on any thread. It may outlive whoever lent it. Used by one thread at a time. */
class [[nodiscard]] Loan
{
  public:
    Loan(Loan &&other) noexcept
        : raw_(std::exchange(other.raw_, nullptr)), size_(other.size_), encoding_(other.encoding_)
    {
    }
    Loan &operator=(Loan &&other) noexcept
    {
        Loan old(std::move(other));
        std::swap(raw_, old.raw_);
        size_ = old.size_;
        encoding_ = old.encoding_;
        return *this;
    }
    Loan(const Loan &) = delete;
    Loan &operator=(const Loan &) = delete;
    ~Loan() { plait_loan_abort(raw_); }

    /* The memory, aligned to 64 bytes, its content undefined at first; NULL if it was sent or moved from. */
    void *data() const noexcept { return plait_loan_data(raw_); }
    template <class T> T *as() const noexcept { return static_cast<T *>(data()); }
    /* The message's size: all that was lent, until use() says less. */
    std::size_t size() const noexcept { return raw_ ? size_ : 0; }
    Encoding encoding() const noexcept { return encoding_; }
    /* Sends only the first SIZE bytes (-EINVAL: more than were lent), and says what they hold. */
    Loan &use(std::size_t size, Encoding encoding = Encoding::bytes)
    {
        check_whole();
        const std::size_t lent = plait_loan_size(raw_);
        if (size > lent)
            detail::fail(-EINVAL, "a message of " + std::to_string(size) + " bytes in a loan of " +
                                      std::to_string(lent) + ": ask for a larger one");
        size_ = size;
        encoding_ = encoding;
        return *this;
    }
    /* False: sent or moved from. */
    explicit operator bool() const noexcept { return raw_ != nullptr; }

  private:
    friend class Client;
    friend class DeferredRequest;
    friend class Publisher;
    friend class detail::AnyRequest;
    explicit Loan(plait_loan *raw) noexcept : raw_(raw), size_(plait_loan_size(raw)) {}
    void check_whole() const
    {
        if (raw_ == nullptr) detail::fail(-EINVAL, "this loan was sent or moved from: ask for another");
    }
    /* To a function that takes it. */
    plait_loan *release()
    {
        check_whole();
        return std::exchange(raw_, nullptr);
    }
    plait_loan *raw_;
    std::size_t size_;
    Encoding encoding_ = Encoding::bytes;
};

} // namespace plait

#endif
