"""Errors, split by what the caller has to do next. Expected outcomes are values, not errors.

WorkerError
 ├─ UsageError           the person at the keyboard: change the input or the settings (exit code 2)
 │   └─ JournalOutdated  the tables of the journal are not those of this version: `order-worker journal upgrade`
 ├─ JournalUnavailable   the journal cannot be reached, or did not answer in time: wait and try again
 ├─ BrokerRefused        the broker refuses our password, vhost or permission: at start exit code 2, later keep trying
 ├─ ConnectionLost       the broker went away or answered nothing in time: reconnect, the message comes again
 ├─ CopyFailed           a copy to a retry or dead-letter queue was not confirmed: keep the original unsettled
 │   └─ CopyReturned     no queue is bound there: waiting does not help, a person has to bind one
 ├─ CopyUnencodable      this one copy cannot be written as AMQP: place a body-only copy instead
 ├─ TokenRefused         the token endpoint refuses our credentials or scope: pause, a person is needed
 ├─ TokenUnavailable     the token endpoint gives no usable answer: wait and try again
 ├─ QueueUnusable        the dead-letter queue cannot be taken now: the text says why, and what to do
 │   ├─ QueueHeld        somebody else takes it, named where known: wait, or ask them
 │   ├─ QueueMissing     there is no such queue
 │   └─ QueueWorn        its messages were handed out so often that the broker may drop them
 └─ AdminFailed          a running worker could not be reached, or refuses what it was asked (exit code 1)
"""


class WorkerError(Exception):
    """Root of all errors of this project."""


class UsageError(WorkerError):
    """Input or settings that cannot work; the text says what to change."""


class JournalOutdated(UsageError):
    """The journal's tables are missing, older or newer than this program; the text says which command helps."""


class JournalUnavailable(WorkerError):
    """The journal could not be reached, refused, or did not answer before the deadline. No password in the text.

    What was being written may have been written or not: writing it again does no harm.
    """


class BrokerRefused(WorkerError):
    """The broker answered, and refuses: wrong password, unknown vhost, no permission, other queue arguments. No
    password in the text."""


class ConnectionLost(WorkerError):
    """The connection or channel to the broker is gone, or did not answer before our deadline."""


class CopyFailed(WorkerError):
    """A copy was returned, refused or not confirmed in time; the original stays unsettled."""


class CopyReturned(CopyFailed):
    """No queue is bound where the message was published to; the broker gave it back."""


class CopyUnencodable(WorkerError):
    """The properties of this copy cannot be encoded, or do not fit a frame: its own fault, nothing was sent."""


class TokenRefused(WorkerError):
    """The token endpoint answered that our client, secret or scope is not acceptable."""


class TokenUnavailable(WorkerError):
    """The token endpoint could not be reached, or its answer could not be read.

    ``retry_after`` is its Retry-After header as it came, if there was one.
    """

    def __init__(self, text: str, *, retry_after: str | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class AdminFailed(WorkerError):
    """The admin interface of a worker does not answer as it should; the text says what to look at."""


class QueueUnusable(WorkerError):
    """The dead-letter queue cannot be taken now."""


class QueueHeld(QueueUnusable):
    """Somebody has the lock of the queue."""


class QueueMissing(QueueUnusable):
    """The broker has no queue of this name."""


class QueueWorn(QueueUnusable):
    """The delivery limit of the queue may be near: looking once more may lose messages.

    ``deliveries`` says how often a message of it was handed out.
    """

    def __init__(self, text: str, *, deliveries: int) -> None:
        super().__init__(text)
        self.deliveries = deliveries
