"""The control rule: nobody is condemned for what may be the platform's fault.

An order that was refused alone is a *suspect*. It is held until something else was accepted by a call that started
after the refusal: another order, or the control call (the same document with an empty list), which is asked for at
once. Only then is it sent alone again, and only if it is refused again it is the message that is wrong.

If the control call is refused as well, it is not the message's fault: 403 means that we lack a right, anything else
that the configuration is wrong, or that this platform never takes empty lists. The latter is learnt when an order is
applied although the control call was refused; from then on only other orders are witnesses.

Five different orders in trouble with nothing applied in between speak for an outage as well. A trouble that the control
call explains away (refusals) is forgotten when that is accepted; busy orders only when an order is applied.
"""

from collections.abc import Sequence

from worker.core.coalesce import Coalescer
from worker.core.entry import Entry, FlushReason
from worker.core.outage import Outage, OutageKind
from worker.core.verdict import Judgement

TROUBLED_ORDERS = 5


class Suspects:
    """Orders that were refused alone, and the witnesses for and against them."""

    def __init__(self, coalescer: Coalescer) -> None:
        self._coalescer = coalescer
        self._held: dict[int, Entry] = {}
        self._accepted_seq = 0
        self._applied_seq = 0
        self._troubled: dict[int, bool] = {}
        self._control_out = False
        self._control_refused: int | None = None
        self.control_usable: bool | None = None

    def hold(self, entry: Entry) -> None:
        """Keep an order that was refused alone until there is a witness."""
        entry.refused_at = self._coalescer.seq
        self._held[entry.order_id] = entry
        self._troubled.setdefault(entry.order_id, False)
        self._ask_control()

    def guilty(self, entry: Entry) -> bool:
        """Whether an order that is refused now was refused before, and something else was accepted in between."""
        return entry.refused_at is not None and self._accepted_seq > entry.refused_at

    def applied_since(self, seq: int) -> bool:
        """Whether an order was applied by a call that started after the one numbered ``seq``."""
        return self._applied_seq > seq

    def busy(self, order_id: int) -> None:
        """Note an order that the platform is too busy for."""
        self._troubled[order_id] = True

    def settled(self, order_id: int) -> None:
        """This order no longer speaks for an outage."""
        self._troubled.pop(order_id, None)

    def outage(self, detail: str) -> Outage | None:
        """The outage that so much trouble speaks for, if it does."""
        if len(self._troubled) < TROUBLED_ORDERS:
            return None
        return Outage(
            kind=OutageKind.UNAVAILABLE,
            detail=f"{len(self._troubled)} different orders failed and none was applied in between: {detail}",
            needs_entry=any(self._troubled.values()),
        )

    def applied(self, seq: int) -> None:
        """An order was applied by the call numbered ``seq``."""
        self._troubled.clear()
        self._applied_seq = max(self._applied_seq, seq)
        if self._control_refused is not None and seq > self._control_refused:
            self.control_usable = False
        self._accepted(seq)

    def control_accepted(self, seq: int) -> None:
        """The empty list was accepted."""
        self._control_out, self._control_refused = False, None
        self.control_usable = True
        self._troubled = {order_id: True for order_id, busy in self._troubled.items() if busy}
        self._accepted(seq)
        if self._held:
            self._ask_control()  # refused after this control call had started: it was no witness for them

    def control_denied(self, judgement: Judgement, seq: int) -> Outage | None:
        """The empty list was refused. That is no news if we asked before it was learnt that none is taken."""
        asked, self._control_out, self._control_refused = self._control_out, False, seq
        if self.control_usable is False and asked:
            return None
        if judgement.status == 403:
            return Outage(kind=OutageKind.AUTH, detail=judgement.detail)
        needs_entry = self.control_usable is not True
        return Outage(kind=OutageKind.CONFIGURATION, detail=judgement.detail, needs_entry=needs_entry)

    def control_lost(self) -> None:
        """The control call got no verdict; who still needs it asks again after the outage."""
        self._control_out = False

    def recovered(self) -> None:
        """Calls may start again: suspects that still wait for a witness get one."""
        if self._held:
            self._ask_control()

    def lost(self) -> Sequence[Entry]:
        """Let go of suspects whose deliveries the broker hands over again, perhaps to another worker: they speak for no
        outage here until they do."""
        gone = [entry for entry in self._held.values() if not self._coalescer.alive(entry)]
        for entry in gone:
            del self._held[entry.order_id]
            self.settled(entry.order_id)
            self._coalescer.finish(entry)
        return gone

    def _ask_control(self) -> None:
        if not self._control_out and self.control_usable is not False:
            self._control_out = True
            self._coalescer.urge_first(self._coalescer.batch((), FlushReason.CONTROL))

    def _accepted(self, seq: int) -> None:
        self._accepted_seq = max(self._accepted_seq, seq)
        for order_id, entry in list(self._held.items()):
            if self.guilty(entry):
                del self._held[order_id]
                self._coalescer.urge(self._coalescer.batch((entry,), FlushReason.RESEND))
