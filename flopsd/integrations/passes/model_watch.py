"""Watch a model for what its description does not show: changes between passes, modules that run again in backward
passes, layers that are left out, replaced parameters. What is found corrects the sessions or is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flopsd.integrations.modules.state import ModelState
from flopsd.integrations.passes.layer_watch import LayerWatch
from flopsd.integrations.passes.model_sessions import ModelSessions
from flopsd.integrations.passes.open_passes import OpenPasses
from flopsd.integrations.passes.recomputation_watch import RecomputationWatch

LAYERS = "forward passes that left layers out, or ran some more than once"
_AGAIN = "modules that are recomputed more than once"
_GIVEN = "passes with weights given as arguments (torch.func.functional_call)"
_MIXED_FLAT = "gradients of frozen weights that FSDP keeps in one flat parameter with trained ones"
_REPLACED = "passes after parameters were replaced, resized or added and before flopsd found it"


class ModelWatch:
    """Watches one model, whose passes `sessions` count. `leave_out` takes a text on uncounted work of training.
    `is_inside`: whether this thread is inside a pass of the whole model. `guarded` calls a function and logs its
    errors."""

    def __init__(
        self, state: ModelState, layers: LayerWatch | None, sessions: ModelSessions, passes: OpenPasses,
        leave_out: Callable[[str], None], is_inside: Callable[[], bool], guarded: Callable[..., None],
    ) -> None:  # fmt: skip
        self.state = state
        self._layers = layers  # None: the layers are not watched
        self._sessions, self._passes, self._leave_out, self._guarded = sessions, passes, leave_out, guarded
        self._recomputation = RecomputationWatch(self._see_recomputation, self._see_recomputed_again, is_inside)

    def begin_pass(self, model: Any, *, records: bool) -> bool:
        """Take note of the model's state before a pass, and watch it if that is due. Return whether the model has
        changed."""
        self._recomputation.see_nodes(self._passes)  # of passes in the state so far
        changed = self.state.has_changed(trains=records)
        if changed:
            self._see_change(model, trains=records)
        self._recomputation.begin_pass(model, self._passes, records=records)
        if self._layers is not None:
            self._watch_layers(self._layers, records=records)
        return changed

    def end_pass(self, *, failed: bool) -> None:
        if self._layers is not None and self._layers.hooks and self._layers.end(failed=failed):
            self._guarded(self._see_layers_left_out)

    def take_trained(self, nodes: int, *, ran_before: bool) -> list[list[Any]]:
        """As `LayerWatch.take_trained`, for a pass that made that many autograd nodes."""
        if self._layers is None:
            return []
        self._layers.see_size(nodes)
        return self._layers.take_trained(ran_before=ran_before)

    def see_declared(self) -> None:
        """The facts of the model, as it is now, were declared."""
        self._recomputation.see_nodes(self._passes)
        self.state.keep()
        self._recomputation.restart()

    def leave_out_unseen(self) -> None:
        self._recomputation.see_nodes(self._passes)
        if self.state.lost_some:
            self._see_replaced()

    def end(self) -> None:
        self._recomputation.end()
        if self._layers is not None:
            self._layers.hooks.remove()

    def _see_change(self, model: Any, *, trains: bool) -> None:
        state = self.state
        if state.saw_late:
            self._see_replaced()
        if self._sessions.go_back(state.key, trains=trains):
            state.keep(is_known=True)
            return
        changed = state.keep()
        self._sessions.describe_again(model, state.key, trains=trains, changed=changed)
        self._recomputation.restart()
        if self._layers is not None:
            self._layers.restart()

    def _see_replaced(self) -> None:
        """It is not known which of the passes so far had gradients of the replaced parameters."""
        self._leave_out(_REPLACED)
        self._sessions.see_replaced(self.state.still_trained, self.state.lost_elements)

    def _watch_layers(self, watch: LayerWatch, *, records: bool) -> None:
        if watch.hooks:  # left by a pass whose end was not seen
            watch.end(failed=True)
        if watch.next_is_watched(records=records):
            watch.begin(self.state.lists())
            if records and self.state.is_given_weights:
                self._leave_out(_GIVEN)
            if records and self.state.has_mixed_flat:
                self._leave_out(_MIXED_FLAT)

    def _see_layers_left_out(self) -> None:
        self._layers = None  # once found, the watch is over
        self._sessions.see_layers_left_out()
        self._leave_out(LAYERS)

    def _see_recomputation(self) -> None:
        if self._sessions.has_no_recomputation:
            self._guarded(self._sessions.see_recomputation)

    def _see_recomputed_again(self) -> None:
        self._guarded(self._leave_out, _AGAIN)
