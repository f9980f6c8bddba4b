"""Trainings that a declaration of one state at one time does not describe, each with PyTorch's count and the
interval that flopsd computes from the declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import MethodType
from typing import Any

from flopsd.core.declarations import NOTHING_DECLARED
from flopsd.core.declared_facts import facts_from, work_from
from flopsd.core.policy.bases import declarations_of
from flopsd.core.policy.reconcile import Architecture
from flopsd.core.session_protocol import DeclaredSession
from tests.train.families import adapt, build, flop_counter
from tests.train.operator_cases import Counters
from tests.train.pytorch import torch
from tests.train.trainers import llama
from tests.train.vision_families import BATCHES

LENGTH, LAYERS = 12, 3


def basis_of(counted: Counters) -> Architecture:
    """The architecture basis that the ledger would have for all sessions."""
    sessions = [
        DeclaredSession(
            f"{at:032x}", 1, 0, "0.1.0", facts_from({n: v for n, v in one.facts.items() if v is not None}),
            work_from(one.work),
        )
        for at, one in enumerate([counted, *counted.others])
    ]  # fmt: skip
    found = declarations_of(NOTHING_DECLARED, sessions)
    assert found.architecture is not None, found.absent
    return found.architecture


class Loop:
    """Steps of a model that a ForwardCounter counts."""

    def __init__(self, model: Any, *, labels: bool = True, **declared: Any) -> None:
        from flopsd.integrations.describe_model import describe
        from flopsd.integrations.forward_counter import ForwardCounter

        self.model, self.counted, self.flop = model.train(), Counters(current_phase=None), 0
        ids = torch.arange(1, 2 * LENGTH + 1).view(2, LENGTH)
        self.inputs = {"input_ids": ids, "labels": ids} if labels else {"input_ids": ids}
        self.counted.declare(**{**describe(model, None), **declared})
        self.counter = ForwardCounter(self.counted)
        self.counter.attach(model)

    def frozen(self) -> Loop:
        """Frozen, outside of training mode, and passed by a gradient on its way to a trained prompt."""
        self.model.requires_grad_(False).eval()
        prompt = torch.nn.Parameter(torch.randn(2, LENGTH, 32))
        self.counts(lambda: self.model(inputs_embeds=prompt).logits.mean().backward())
        return self

    def steps(self, count: int = 1, loss: str = "loss") -> Loop:
        for _ in range(count):
            self._counted(lambda **inputs: getattr(self.model(**inputs), loss).mean().backward())
        return self

    def evaluated(self) -> Loop:
        """Passes without a backward pass that nevertheless record for one."""
        self.model.eval()
        self._counted(self.model)
        return self

    def passes(self, count: int) -> Loop:
        with torch.no_grad():
            for _ in range(count):
                self._counted(self.model)
        return self

    def generates(self, **how: Any) -> Loop:
        ids = torch.arange(4, 4 + 2 * LENGTH).view(2, LENGTH)
        self.model.eval()
        how = {"max_new_tokens": 4, "min_new_tokens": 4, **how}
        self._counted(lambda **_: self.model.generate(input_ids=ids, **how))
        return self

    def _counted(self, run: Callable[..., object]) -> None:
        self.counts(partial(run, **self.inputs))

    def counts(self, run: Callable[[], object]) -> None:
        """Run `run` under PyTorch's counter."""
        with flop_counter() as counter:
            run()
        self.flop += counter.get_total_flops()

    def basis(self) -> Architecture:
        self.counter.settle()
        return basis_of(self.counted)


def adapted(config: str, **options: Any) -> Any:
    import peft

    return peft.get_peft_model(llama(num_hidden_layers=LAYERS), getattr(peft, config)(**options))


def _lora(r: int = 4, modules: Any = ("q_proj", "v_proj")) -> Any:
    return adapted("LoraConfig", r=r, target_modules=modules if isinstance(modules, str) else list(modules))


def _head_alone(model: Any) -> None:
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)


def _frozen_from_the_second_step() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    _head_alone(loop.model)
    return loop.steps(4)


def _frozen_before_the_backward_pass() -> Loop:
    """Like two networks that train against each other."""

    def run(**inputs: Any) -> None:
        loss = loop.model(**inputs).loss
        loop.model.requires_grad_(False)
        loss.backward()
        loop.model.requires_grad_(True)

    loop = Loop(llama(num_hidden_layers=LAYERS))
    for _ in range(2):
        loop._counted(run)
    assert not loop.counter._hooks.failed
    return loop


def _thawed_from_the_second_step() -> Loop:
    model = llama(num_hidden_layers=LAYERS)
    _head_alone(model)
    loop = Loop(model).steps()
    model.requires_grad_(True)
    return loop.steps(4)


def _frozen_by_turns() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    parameters = list(loop.model.parameters())
    for kept in range(1, 9):  # more often than there are sessions
        for at, parameter in enumerate(parameters):
            parameter.requires_grad_(at % 9 <= kept)
        loop.steps()
    return loop


def _base_thawed() -> Loop:
    loop = Loop(_lora()).steps()
    loop.model.requires_grad_(True)
    return loop.steps(3)


def _another_adapter() -> Loop:
    import peft

    loop = Loop(_lora()).steps()
    loop.model.add_adapter("other", peft.LoraConfig(r=16, target_modules="all-linear"))
    loop.model.set_adapter("other")
    return loop.steps(3).passes(2)


def _checkpointed_by_turns() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    for _ in range(2):
        loop.model.gradient_checkpointing_enable({"use_reentrant": False})
        loop.steps(2)
        loop.model.gradient_checkpointing_disable()
        loop.steps(2)
    return loop


def _adapters_off() -> Loop:
    loop = Loop(_lora(64, "all-linear")).steps()
    with loop.model.disable_adapter():
        loop.passes(4)
    return loop


def _two_adapters_evaluated() -> Loop:
    import peft

    model = _lora(4, "all-linear")
    model.add_adapter("other", peft.LoraConfig(r=4, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "other"])
    return Loop(model).steps().passes(4)


def _ranks_differ_evaluated() -> Loop:
    model = adapted("LoraConfig", r=32, target_modules="all-linear", rank_pattern={"q_proj": 8})
    return Loop(model).steps().passes(4)


def _pretraining_of_the_head() -> Loop:
    model = llama(num_hidden_layers=LAYERS)
    _head_alone(model)
    return Loop(model, method="pretraining").steps()


def _encoded_once(family: str, **how: Any) -> Loop:
    return Loop(build(family)).steps().generates(**how)


def _generated(family: str, tokens: int = 4) -> Loop:
    return Loop(build(family)).steps().generates(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)


def _first_convolution() -> Loop:
    """With the table before it and the matrices around it: all possible gradients, and few weights."""
    model = build("lfm2_moe")
    for parameter in list(model.parameters())[4:]:
        parameter.requires_grad_(False)
    return Loop(model).steps()


def _copies_inside_a_copy(*saved: str) -> Loop:
    """PEFT wraps both modules by these names, and hangs the inner wrapper on the outer, which never calls it."""
    import peft

    from tests.train.vision_families import BATCHES, loss_of

    config = peft.LoraConfig(r=3, target_modules=["q_proj"], modules_to_save=list(saved))
    loop, inputs = Loop(peft.get_peft_model(build("vit"), config), labels=False), BATCHES["vit"]()[0]
    loop.counts(lambda: loss_of(loop.model(**inputs)).backward())
    return loop


def _without_dropout() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS))
    loop.model.eval()
    return loop.steps(2)


def _checkpointed_without_dropout() -> Loop:
    model = llama(num_hidden_layers=LAYERS)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loop = Loop(model).steps(2)
    model.eval()
    return loop.steps(4)


def _frozen_adapters() -> Loop:
    """Below a trained head."""
    model = _lora(1)
    _head_alone(model)
    return Loop(model).steps(2)


def _inner_state_beside_adapters() -> Loop:
    """The model's own weights are trained too."""
    loop = Loop(_lora().requires_grad_(True))
    loop._counted(lambda **inputs: loop.model(**inputs, output_hidden_states=True).hidden_states[0].sum().backward())
    return loop


def _layers_removed_by_turns() -> Loop:
    """More often than there are sessions."""
    loop = Loop(llama(num_hidden_layers=9))
    for at in range(8):
        loop.model.model.layers[at].requires_grad_(False)
        loop.steps()
    del loop.model.model.layers[1:]
    return loop.steps(40)


def _of_shapes_only(*, by_weights: bool) -> Loop:
    """Estimated in between, as if on data, in the shape of the other passes and in another."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = llama(num_hidden_layers=LAYERS)
    model.config.layers_left_out = by_weights
    loop = Loop(model).steps()
    for rows in (2, 9):
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            ids = torch.ones(rows, LENGTH, dtype=torch.long)
            model(input_ids=ids, attention_mask=ids, labels=ids)
            model(**loop.inputs)
    return loop.steps()


def _beside_shapes_only() -> Loop:
    """The first tensor has no data, and the others have."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    with torch.no_grad():
        loop._counted(lambda **inputs: loop.model(marker=torch.ones(1, device="meta"), **inputs))
    return loop


def _encoded_without_gradients() -> Loop:
    def run(input_ids: Any, labels: Any) -> None:
        with torch.no_grad():
            states = loop.model.get_encoder()(input_ids)
        loop.model(encoder_outputs=states, labels=labels).loss.backward()

    loop = Loop(build("t5"))
    for _ in range(3):
        loop._counted(run)
    return loop


def _without_gradients(family: str, part: Callable[[Any], Any], *, reentrant: bool = False, unused: int = 0) -> Loop:
    """A part of the model that is declared as trained. `unused`: passes before that have no backward pass."""
    loop = Loop(build(family))
    if reentrant:
        loop.model.gradient_checkpointing_enable({"use_reentrant": True})
    if family in BATCHES:
        loop.inputs, _ = BATCHES[family]()
    module = part(loop.model)
    module.forward = torch.no_grad()(module.forward)
    for _ in range(unused):
        loop._counted(loop.model)
    return loop.steps(1 if unused else 3)


def alternating(step: Callable[[Loop, bool], object], steps: int = 12) -> Loop:
    """Each sixth step is another one. The first of them is not watched."""
    loop = Loop(llama(num_hidden_layers=6, use_cache=False), method="full")
    for at in range(1, steps + 1):
        loop.counts(partial(step, loop, at % 6 == 0))
    return loop


@contextmanager
def _around(loop: Loop, call: Callable[..., Any]) -> Iterator[None]:
    """The middle layers' forward passes by `call`, which takes the usual one."""
    layers = loop.model.model.layers[1:5]
    for layer in layers:
        layer.forward = partial(call, layer.forward)
    yield
    for layer in layers:
        del layer.forward


def _recorded_in_part(loop: Loop, is_other: bool) -> None:
    """Other steps pass no gradients into the middle layers, but around them."""

    def call(forward: Any, states: Any, **named: Any) -> Any:
        with torch.no_grad():
            found = forward(states, **named)
        return states + (found - states)

    with _around(loop, call if is_other else lambda forward, *of, **named: forward(*of, **named)):
        _of_one_pass(loop)


def _recomputed_at_times(loop: Loop, is_other: bool) -> None:
    from torch.utils.checkpoint import checkpoint

    def call(forward: Any, states: Any, **named: Any) -> Any:
        return _again(checkpoint, forward, False, states, **named) if is_other else forward(states, **named)

    with _around(loop, call):
        _of_one_pass(loop)


def left_out_at_times(loop: Loop, is_other: bool) -> None:
    """By the class of the layers, as by a loop over some of them."""
    layers = loop.model.model.layers[1:5] if is_other else ()
    for layer in layers:
        layer.__class__ = type("Layer", (type(layer),), {"__call__": lambda _, states, **__: states})
    _of_one_pass(loop)
    for layer in layers:
        layer.__class__ = type(layer).__base__


def _of_some_weights_at_times(loop: Loop, is_other: bool) -> None:
    """Gradients of the first layer and the head alone."""
    ends = [*loop.model.model.embed_tokens.parameters(), *loop.model.model.layers[0].parameters()]
    kept = [*ends, *loop.model.model.norm.parameters(), *loop.model.lm_head.parameters()]
    loop.model(**loop.inputs).loss.backward(inputs=kept if is_other else None)


def _parts_without_gradients() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS))
    for layer in loop.model.model.layers:
        layer.mlp.forward = torch.no_grad()(layer.mlp.forward)
    return loop.steps(2)


def _stopped(*, by_weights: bool) -> Loop:
    """A function passes no gradient on."""

    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, states: Any) -> Any:
            return states.clone()

        @staticmethod
        def backward(_: Any, _gradient: Any) -> Any:
            return None

    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    model.config.layers_left_out = by_weights
    forward = model.model.layers[2].forward
    model.model.layers[2].forward = lambda states, **named: forward(Stops.apply(states), **named)
    return Loop(model).steps(2)


def _beside_a_whole_pass() -> Loop:
    """One loss of two passes, of which the first passes no gradients into the middle layers."""

    def run(**inputs: Any) -> None:
        layers = loop.model.model.layers[1:5]
        for layer in layers:
            layer.forward = torch.no_grad()(layer.forward)
        first = loop.model(**inputs).loss
        for layer in layers:
            del layer.forward
        (first + loop.model(**inputs).loss).backward()

    loop = Loop(llama(num_hidden_layers=6, use_cache=False), method="full")
    loop._counted(run)
    return loop


def _beside_a_cache_of_a_whole_pass() -> Loop:
    """One loss of two passes. The second gets the cache of the first, which leads to all layers, and passes no
    gradients into the first layers itself."""

    def run(**inputs: Any) -> None:
        first = loop.model(**inputs)
        layer = loop.model.model.layers[4]
        forward = layer.forward
        layer.forward = lambda states, **named: forward(states.detach(), **named)
        second = loop.model(**inputs, past_key_values=first.past_key_values)
        del layer.forward
        (first.loss + second.loss).backward()

    loop = Loop(llama(num_hidden_layers=6), method="full")
    loop._counted(run)
    return loop


def _of_some_weights_by_weights() -> Loop:
    """A backward pass for the weights at both ends."""
    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    model.config.layers_left_out = True
    loop = Loop(model)
    for is_other in (False, True, True):
        loop.counts(partial(_of_some_weights_at_times, loop, is_other))
    return loop


def _layers_called_by_the_loop() -> Loop:
    """The whole model is called for an evaluation alone."""

    def run(input_ids: Any, **_: Any) -> None:
        model = loop.model.model
        states = model.embed_tokens(input_ids)
        positions = model.rotary_emb(states, torch.arange(LENGTH)[None])
        for layer in model.layers:
            states = layer(states, position_embeddings=positions)
        loop.model.lm_head(states).mean().backward()

    loop = Loop(llama(num_hidden_layers=LAYERS)).passes(1)
    loop._counted(run)
    return loop


def _without_dropout_by_weights() -> Loop:
    model = llama(num_hidden_layers=LAYERS)
    model.config.layers_left_out = True
    loop = Loop(model)
    loop.model.eval()
    return loop.steps(2).passes(1).evaluated()


def _recorded_for_nothing() -> Loop:
    return Loop(_lora()).steps().evaluated().evaluated()


def _no_backward_pass() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    for _ in range(3):
        loop._counted(loop.model)
        loop._counted(lambda **inputs: loop.model(**inputs).loss.detach())
    return loop


def _of_whisper() -> Loop:
    """Its sinusoidal positions have no gradients in any training."""
    loop = Loop(build("whisper"))
    loop.inputs = {"input_features": torch.randn(2, 20, 48), "labels": torch.arange(4, 24).view(2, 10)}
    return loop


def _two_passes_for_one_loss() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS))
    loop._counted(lambda **inputs: (loop.model(**inputs).loss - loop.model(**inputs).logits.mean()).backward())
    return loop


def _backward_twice() -> Loop:
    def run(**inputs: Any) -> None:
        loss = loop.model(**inputs).loss
        loss.backward(retain_graph=True)
        loss.backward()

    loop = Loop(llama(num_hidden_layers=LAYERS))
    loop._counted(run)
    return loop


def _lower_adapters_frozen() -> Loop:
    """And the upper layers trained beside their adapters."""
    model = _lora()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.2" in name or "lm_head" in name)
    return Loop(model).steps(2)


def _failed_backward() -> Loop:
    """As of too little memory, and half of the batch again."""

    def fails(*_: Any) -> None:
        raise MemoryError

    def run(**inputs: Any) -> None:
        hook = loop.model.model.layers[-1].mlp.down_proj.weight.register_hook(fails)
        with suppress(MemoryError):
            loop.model(**inputs).loss.backward()
        hook.remove()
        loop.model(**{name: one[:1] for name, one in inputs.items()}).loss.backward()

    loop = Loop(llama(num_hidden_layers=LAYERS))
    for _ in range(3):
        loop._counted(run)
    return loop


def _in_chunks(family: str | None = None) -> Loop:
    def run(**inputs: Any) -> None:
        first = loop.model(**inputs)
        (first.loss + loop.model(**inputs, past_key_values=first.past_key_values).loss).backward()

    loop = Loop(build(family) if family else llama(num_hidden_layers=LAYERS))
    loop._counted(run)
    return loop


def _backbone_alone() -> Loop:
    def run(input_ids: Any, **_: Any) -> None:
        loop.model.model(input_ids=input_ids).last_hidden_state.mean().backward()

    loop = Loop(llama(num_hidden_layers=LAYERS))
    loop._counted(run)
    loop._counted(lambda input_ids, **_: loop.model.model(input_ids=input_ids))
    return loop


def _layers_dropped() -> Loop:
    """All layers of a decoder, so that the encoder's gradient is not computed."""
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "vocab_size": 500,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_layerdrop": 1.0,
    }  # fmt: skip
    return Loop(BartForConditionalGeneration(BartConfig(**sizes, attn_implementation="eager"))).steps()


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=500, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        attn_implementation="eager",
    )  # fmt: skip
    return BertModel(config)


def _pooler_unread() -> Loop:
    return Loop(_bert(), labels=False).steps(loss="last_hidden_state")


def _pooler_of_images_unread() -> Loop:
    """SigLIP's pooler, which attends to all patches."""
    loop = Loop(build("siglip_vision_model"), labels=False)
    images, _ = BATCHES["siglip_vision_model"]()
    loop.counts(lambda: loop.model(pixel_values=images["pixel_values"]).last_hidden_state.sum().backward())
    return loop


def _head_beside() -> Loop:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = _bert(), torch.nn.Linear(32, 500)
            self.config = self.inner.config

        def forward(self, **inputs: Any) -> Any:
            found = self.inner(**inputs)
            found.loss = self.head(found.last_hidden_state)
            return found

    return Loop(Wrapped(), labels=False).steps().passes(1)


def _layers_left_out() -> Loop:
    """By the configuration, as in generation with an early exit."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    loop.model.config.num_hidden_layers = 1
    loop.steps(4).passes(3)
    loop.model.config.num_hidden_layers = LAYERS
    return loop.steps()


def _layers_taken_out() -> Loop:
    """The removed layers are kept elsewhere."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    whole = loop.model.model.layers
    loop.model.model.layers = whole[:1]
    loop.steps(4).passes(3)
    loop.model.model.layers = whole
    return loop


def skipping(*, inside: bool, declared: bool = False, gradients: bool = True) -> Loop:
    """Layers that are skipped in turn: by the loop over them (`inside` false), or by the layers themselves.
    `declared`: the configuration says so."""
    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    model.config.layers_left_out = declared
    loop = Loop(model)
    for at, layer in enumerate(model.model.layers):
        name = "forward" if inside else "__call__"
        run = getattr(layer, name)

        def perhaps(states: Any, *_: Any, at: int = at, run: Any = run, **named: Any) -> Any:
            return states if (len(calls) + at) % 2 else run(states, **named)

        if inside:
            layer.forward = perhaps
        else:
            layer.__class__ = type(
                "Layer", (type(layer),), {"__call__": lambda _, *of, call=perhaps, **by: call(*of, **by)}
            )
    calls = list[int]()
    for _ in range(4):
        calls.append(1)
        loop = loop.steps() if gradients else loop.passes(1)
    return loop


def _early_exit() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    loop.model.eval()
    how = {"assistant_early_exit": 1, "do_sample": False, "max_new_tokens": 16, "min_new_tokens": 16}
    loop.counts(lambda: loop.model.generate(input_ids=torch.arange(4, 12).view(1, 8), **how))
    return loop


def _unloaded() -> Loop:
    """The adapters' wrapper is then gone."""
    loop = Loop(_lora(16, "all-linear")).steps()
    loop.model = loop.model.unload()
    loop.model.requires_grad_(True)
    return loop.steps(3)


def _fixed_cache(tokens: int) -> Loop:
    """With 40 places."""
    from transformers import StaticCache

    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    for _ in range(2):
        cache = StaticCache(loop.model.config, max_cache_len=40)
        loop.generates(past_key_values=cache, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)
    return loop


def _another_head() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS), labels=False).steps(loss="logits")
    loop.model.lm_head = torch.nn.Linear(32, 8, bias=False)
    return loop.steps(4, loss="logits")


def _wrapped(*layers: int) -> Loop:
    """Layers that PyTorch's own wrapper recomputes."""
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    for at in layers:
        model.model.layers[at] = checkpoint_wrapper(model.model.layers[at])
    return Loop(model).steps(3)


def _of_each_sequence() -> Loop:
    """Gradients of each sequence separately."""

    def loss(weights: Any, ids: Any) -> Any:
        return torch.func.functional_call(loop.model, weights, (), {"input_ids": ids[None]}).logits.sum()

    loop = Loop(llama(num_hidden_layers=LAYERS, use_cache=False))
    weights = {name: one.detach() for name, one in loop.model.named_parameters()}
    ids = torch.arange(1, 2 * LENGTH + 1).view(2, LENGTH)
    loop.counts(lambda: torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, ids))
    return loop


def _of_a_class_of_its_own(loss: str = "loss", **members: Any) -> Loop:
    """A class like the one that FSDP makes for a model that it shards."""
    model = llama(num_hidden_layers=LAYERS, tie_word_embeddings=True)
    model.__class__ = type("FSDPLlamaForCausalLM", (type(model),), members)
    return Loop(model).steps(loss=loss)


def _of_given_weights() -> Loop:
    """These are trained in place of a frozen model's own."""
    model = llama(num_hidden_layers=LAYERS, use_cache=False).requires_grad_(False)
    loop = Loop(model)
    weights = {name: one.clone().requires_grad_() for name, one in model.named_parameters()}
    for _ in range(3):
        loop._counted(lambda **inputs: torch.func.functional_call(model, weights, (), inputs).loss.backward())
    return loop


def _without_head(model: Any, input_ids: Any, labels: Any) -> Any:  # noqa: ARG001
    from transformers.modeling_outputs import CausalLMOutput

    return CausalLMOutput(loss=model.model(input_ids=input_ids).last_hidden_state.mean())


def _with_a_fused_loss() -> Loop:
    """It replaces the model's forward pass."""
    from transformers.modeling_outputs import CausalLMOutput

    class Fused(torch.autograd.Function):
        """A loss that keeps no logits: it computes them again in the backward pass."""

        @staticmethod
        def forward(context: Any, rows: Any, weight: Any) -> Any:
            context.save_for_backward(rows, weight)
            return (rows @ weight.T).logsumexp(-1).sum()

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            rows, weight = context.saved_tensors
            of_logits = (rows @ weight.T).softmax(-1) * gradient
            return of_logits @ weight, of_logits.T @ rows

    def forward(self: Any, input_ids: Any, **_: Any) -> Any:
        rows = self.model(input_ids=input_ids).last_hidden_state.flatten(0, 1)
        return CausalLMOutput(loss=Fused.apply(rows, self.lm_head.weight))

    model = llama(num_hidden_layers=LAYERS, vocab_size=500)
    model.forward = MethodType(forward, model)
    return Loop(model).steps(2)


def _inner_state() -> Loop:
    """A loss of the first layer's output, like an early exit."""
    loop = Loop(llama(num_hidden_layers=LAYERS))
    loop._counted(lambda **inputs: loop.model(**inputs, output_hidden_states=True).hidden_states[1].sum().backward())
    return loop


def _counted_twice() -> Loop:
    """As by the callbacks of two Trainers, one after the other."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    again = Loop(loop.model).steps(2)
    loop.flop += again.flop
    again.counter.settle()
    loop.counted.others += [again.counted, *again.counted.others]
    return loop


def _replaced(surgery: Callable[[Any], object]) -> Loop:
    """The optimizer keeps the old parameters."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    optimizer = torch.optim.SGD(loop.model.parameters())
    optimizer.zero_grad()
    surgery(loop.model)
    return loop.passes(1).steps(4)


def _assigned() -> Loop:
    """Weights in the place of others, which the optimizer keeps."""
    loop = Loop(_lora(64, "all-linear")).steps()
    before = list(loop.model.parameters())
    loop.model.load_state_dict({name: one.clone() for name, one in loop.model.state_dict().items()}, assign=True)
    loop.model.requires_grad_(True)
    assert before
    return loop.steps(3)


def _one_assigned(steps: int) -> Loop:
    model = adapt(llama(num_hidden_layers=LAYERS, intermediate_size=4000), ["q_proj"])
    loop, before = Loop(model).steps(), list(model.parameters())
    layer = model.get_base_model().model.layers[1].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone())
    assert before
    return loop.steps(steps)


def _one_frozen(loop: Loop, name: str, steps: int) -> Loop:
    """A frozen weight in the place of a trained one."""
    layer, before = loop.steps().model.get_submodule(name), list(loop.model.parameters())
    layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    assert before
    return loop.steps(steps)


def _resized(width: int, *, in_place: bool, steps: int = 6) -> Loop:
    """Feed-forward matrices of another size: other parameters, or other data of the same."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps(2)
    for layer in loop.model.model.layers:
        for name, shape in (("gate_proj", (width, 32)), ("up_proj", (width, 32)), ("down_proj", (32, width))):
            one, weight = getattr(layer.mlp, name), torch.randn(shape)
            if in_place:
                one.weight.data, one.weight.grad = weight, None
            else:
                one.weight = torch.nn.Parameter(weight)
    return loop.steps(steps) if steps > 1 else loop.passes(steps)


def _extended(run: Callable[[Loop], Loop]) -> Loop:
    """Each projection gets a module of its own, such as an adapter, and adds what it computes."""
    loop = Loop(llama(num_hidden_layers=LAYERS)).steps(2)
    for layer in loop.model.model.layers:
        one = layer.mlp.down_proj
        one.beside, forward = torch.nn.Linear(one.in_features, one.out_features, bias=False), one.forward
        one.forward = lambda rows, one=one, forward=forward: forward(rows) + one.beside(rows)
    return run(loop)


def _adapted_when_frozen() -> Loop:
    import peft

    loop = Loop(llama(num_hidden_layers=LAYERS).requires_grad_(False)).passes(1)
    loop.model = peft.get_peft_model(loop.model, peft.LoraConfig(r=64, target_modules="all-linear"))
    return loop.steps(3)


def _attached_again() -> Loop:
    loop = Loop(_lora(64, "all-linear")).steps()
    loop.model.requires_grad_(True)
    loop.counter.attach(loop.model)
    return loop.steps(3)


def _flat(*, adapters: bool) -> Loop:
    """FSDP 1 of one process, whose flat parameters hold frozen weights beside trained ones."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    model = _lora() if adapters else llama(num_hidden_layers=LAYERS)
    loop, place = Loop(model), torch.device("cpu")
    loop.model = FullyShardedDataParallel(model, use_orig_params=True, device_id=place)
    loop.steps(2)
    torch.distributed.destroy_process_group()
    return loop


def _sharded_and_cut() -> Loop:
    """FSDP 2 of one process, and a layer that passes no gradients on."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    model = llama(num_hidden_layers=LAYERS)
    forward = model.model.layers[1].forward
    model.model.layers[1].forward = lambda states, **named: forward(states.detach(), **named)
    for one in (*model.model.layers, model):
        fully_shard(one, mesh=init_device_mesh("cpu", (1,)))
    loop = Loop(model).steps(2)
    torch.distributed.destroy_process_group()
    return loop


def _wider(model: Any) -> None:
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = (torch.nn.Linear(32, 512, bias=False) for _ in range(2))
        layer.mlp.down_proj = torch.nn.Linear(512, 32, bias=False)


def _checkpointed_by_the_loop(*, reentrant: bool, compiled: bool = False) -> Loop:
    """Without a switch of the model's own."""
    from torch.utils.checkpoint import checkpoint

    class Around(torch.nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = torch.compile(layer, backend="eager")

        def forward(self, states: Any, **named: Any) -> Any:
            return _again(checkpoint, self.layer, False, states, **named)

    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    if compiled:
        model.model.layers = torch.nn.ModuleList(map(Around, model.model.layers))
        return Loop(model).steps(5)
    loop = Loop(model)
    for layer in loop.model.model.layers:
        layer.forward = partial(_again, checkpoint, layer.forward, reentrant)
    return loop.steps(5)


def _of_one_pass(loop: Loop) -> None:
    loop.model(**loop.inputs).loss.backward()


def _checkpointed_within(
    *, switched: bool, reentrant: bool = False, step: Callable[[Loop], None] = _of_one_pass
) -> Loop:
    """Parts of recomputed layers that are recomputed themselves."""
    from torch.utils.checkpoint import checkpoint

    model = llama(num_hidden_layers=LAYERS, use_cache=False)
    if switched:
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for layer in model.model.layers:
        layer.mlp.forward = partial(checkpoint, layer.mlp.forward, use_reentrant=reentrant)
        if not switched:
            layer.forward = partial(_again, checkpoint, layer.forward, reentrant)
    loop = Loop(model)
    for _ in range(5):
        loop.counts(partial(step, loop))
    return loop


def _of_two_passes(loop: Loop) -> None:
    (loop.model(**loop.inputs).loss + loop.model(**loop.inputs).loss).backward()


def _around_an_evaluation(loop: Loop) -> None:
    loss = loop.model(**loop.inputs).loss
    with torch.no_grad():
        loop.model(**loop.inputs)
    loss.backward()


def _again(checkpoint: Any, forward: Any, reentrant: bool, states: Any, **named: Any) -> Any:
    return checkpoint(partial(forward, **named), states, use_reentrant=reentrant)


def _of_inputs(*, model: Any = None, penalty: bool = False) -> Loop:
    """Gradients of the inputs alone, as in adversarial training, or of these gradients."""

    def run(input_ids: Any, labels: Any) -> None:
        table = loop.model.get_input_embeddings()
        rows = table(input_ids).detach().requires_grad_()
        found = loop.model(inputs_embeds=rows + 0, labels=labels)
        loss = found.logits.sum() if penalty else found.loss  # the work derived from it does not begin at the logits
        (of_inputs,) = torch.autograd.grad(loss, rows, create_graph=penalty)
        if penalty:
            of_inputs.square().sum().backward()

    loop = Loop(llama(num_hidden_layers=LAYERS) if model is None else model)
    loop._counted(run)
    return loop


def _state_of_a_hook(*losses: str, frozen: bool = False) -> Loop:
    """Backward passes from the state after the second layer, which the loop's own hook takes, and from the loss, in
    this order."""
    loop, state = Loop(llama(num_hidden_layers=LAYERS)), list[Any]()
    loop.model.model.layers[1].register_forward_hook(lambda _module, _arguments, output: state.append(output))
    prompt = torch.nn.Parameter(torch.randn(2, LENGTH, 32))
    if frozen:
        loop.model.requires_grad_(False).eval()

    def run(**inputs: Any) -> None:
        found = loop.model(inputs_embeds=prompt, labels=inputs["labels"]) if frozen else loop.model(**inputs)
        for name in losses:
            (found.loss if name == "loss" else state[-1].sum()).backward(retain_graph=True)
        state.clear()

    for _ in range(3):
        loop._counted(run)
    return loop


def _of_some_weights(*parts: str) -> Loop:
    """A backward pass only for the weights of these parts, after one for all."""

    def run(**inputs: Any) -> None:
        loop.model(**inputs).loss.backward(inputs=kept)

    loop = Loop(llama(num_hidden_layers=LAYERS)).steps()
    kept = [parameter for name, parameter in loop.model.named_parameters() if any(part in name for part in parts)]
    for _ in range(2):
        loop._counted(run)
    return loop


def _by_place() -> Loop:
    """Arguments without their names."""
    loop = Loop(build("t5"))
    loop._counted(lambda input_ids, labels: loop.model(input_ids, None, labels).logits.mean().backward())
    return loop.steps()


def _in_a_batch() -> Loop:
    """Some inputs are in a dictionary, which flopsd does not look into."""

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = llama(num_hidden_layers=LAYERS)
            self.config = self.inner.config

        def forward(self, batch: Any = None, **named: Any) -> Any:
            return self.inner(**(batch or named))

    loop = Loop(Wrapped()).steps()
    loop._counted(lambda **inputs: loop.model(inputs).loss.backward())
    return loop


def _called_twice() -> Loop:
    """By a module that shows its configuration, with other tokens than it is given."""

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = _bert()
            self.config = self.encoder.config

        def forward(self, input_ids: Any, others: Any) -> Any:
            first, second = (self.encoder(input_ids=one).last_hidden_state[:, 0] for one in (input_ids, others))
            return first @ second.T

    loop = Loop(Two(), labels=False)
    others = torch.arange(1, 61).view(2, 30)
    loop._counted(lambda input_ids: loop.model(input_ids, others).sum().backward())
    return loop


def _called_twice_by_one_of_its_family() -> Loop:
    """A class made by a training, like most with their own head, trained with adapters."""
    from transformers import BertModel
    from transformers.models.bert.modeling_bert import BertPreTrainedModel

    class Two(BertPreTrainedModel):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bert, self.own = BertModel(config), torch.nn.Linear(32, 3)
            self.post_init()

        def forward(self, input_ids: Any) -> Any:
            first, second = (self.bert(input_ids=one).last_hidden_state for one in (input_ids, input_ids.flip(1)))
            return self.own(first - second)

    import peft

    config = peft.LoraConfig(r=4, target_modules=["query"], modules_to_save=["own"])
    loop = Loop(peft.get_peft_model(Two(_bert().config), config), labels=False)
    loop._counted(lambda input_ids: loop.model(input_ids).sum().backward())
    return loop


def _two_heads() -> Loop:
    """Its rows have several sequences, and its class name ends like that of a model without a head."""
    from transformers import GPT2Config, GPT2DoubleHeadsModel

    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=128, attn_implementation="eager")
    loop = Loop(GPT2DoubleHeadsModel(config), labels=False)
    loop._counted(lambda input_ids: loop.model(input_ids[:, None].repeat(1, 2, 1)).logits.sum().backward())
    return loop


def _twice(model: Any, input_ids: Any, **_: Any) -> Any:
    found = model.model(input_ids=input_ids)
    return type(found)(last_hidden_state=found[0] - model.model(input_ids=input_ids.flip(1))[0])


def _a_scalar_for_a_head() -> Loop:
    loop = Loop(llama(num_hidden_layers=LAYERS, vocab_size=999, tie_word_embeddings=True), labels=False)
    loop.steps(loss="logits").model.lm_head = torch.nn.Linear(32, 1)
    return loop.steps(4, loss="logits")


def _merged() -> Loop:
    loop = Loop(_lora(64, "all-linear")).steps()
    loop.model.merge_adapter()
    loop.model.requires_grad_(True)
    loop.steps(3)
    loop.model.unmerge_adapter()
    return loop.steps()


def _tokens_of_a_tied_head() -> Loop:
    import peft

    model = llama(num_hidden_layers=LAYERS, tie_word_embeddings=True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[3, 4])
    return Loop(peft.get_peft_model(model, config)).steps(2)


CASES: Mapping[str, Callable[[], Loop]] = {
    "a vocabulary resized": partial(_replaced, lambda model: model.resize_token_embeddings(999, mean_resizing=False)),
    "modules replaced": partial(_replaced, _wider),
    "smaller weights": partial(_resized, 8, in_place=False),
    "smaller data": partial(_resized, 8, in_place=True),
    "smaller data at the end": partial(_resized, 8, in_place=True, steps=1),
    "larger data": partial(_resized, 256, in_place=True),
    "modules beside weights": partial(_extended, lambda loop: loop.steps(8)),
    "modules beside weights, evaluated": partial(_extended, lambda loop: loop.passes(8)),
    "modules beside weights at the end": partial(_extended, lambda loop: loop.passes(1)),
    "weights assigned": _assigned,
    "one frozen adapter assigned": lambda: _one_frozen(
        Loop(_lora(64, "all-linear")), "base_model.model.model.layers.1.mlp.up_proj.lora_A.default", 6
    ),
    "one frozen weight assigned at the end": lambda: _one_frozen(_of_whisper(), "model.decoder.layers.0.fc1", 1),
    "one weight assigned": partial(_one_assigned, 6),
    "one weight assigned at the end": partial(_one_assigned, 1),
    "adapters in a flat parameter": partial(_flat, adapters=True),
    "a flat parameter": partial(_flat, adapters=False),
    "adapters after a counter of a frozen model": _adapted_when_frozen,
    "attached again": _attached_again,
    "a checkpoint of the loop's own": partial(_checkpointed_by_the_loop, reentrant=False),
    "a checkpoint of compiled layers": partial(_checkpointed_by_the_loop, reentrant=False, compiled=True),
    "a reentrant checkpoint of the loop's own": partial(_checkpointed_by_the_loop, reentrant=True),
    "checkpoints within those of the model": partial(_checkpointed_within, switched=True),
    "checkpoints within those of the model, reentrant": partial(_checkpointed_within, switched=True, reentrant=True),
    "checkpoints of the loop's own within others": partial(_checkpointed_within, switched=False),
    "checkpoints within others, two passes": partial(_checkpointed_within, switched=True, step=_of_two_passes),
    "checkpoints within others, evaluated": partial(_checkpointed_within, switched=True, step=_around_an_evaluation),
    "gradients of inputs": _of_inputs,
    "gradients of inputs, beside adapters": lambda: _of_inputs(model=_lora(64)),
    "gradients of gradients": partial(_of_inputs, penalty=True),
    "gradients near the head": partial(_of_some_weights, "layers.2", "lm_head"),
    "gradients of both ends": partial(_of_some_weights, "embed_tokens", "lm_head"),
    "a loss of a state of a hook": partial(_state_of_a_hook, "state"),
    "a loss of a state of a hook beside another": partial(_state_of_a_hook, "loss", "state"),
    "a loss of a state of a hook before another": partial(_state_of_a_hook, "state", "loss"),
    "a loss of a state of a hook, of a frozen model": partial(_state_of_a_hook, "state", frozen=True),
    "two losses of a frozen model, one of a hook": partial(_state_of_a_hook, "loss", "state", frozen=True),
    "arguments by their places": _by_place,
    "arguments in a dictionary": _in_a_batch,
    "a model called twice within another": _called_twice,
    "a model called twice within one of its family": _called_twice_by_one_of_its_family,
    "a model with two heads": _two_heads,
    "a forward pass of its own, twice": lambda: _of_a_class_of_its_own(loss="last_hidden_state", forward=_twice),
    "a scalar in place of a tied head": _a_scalar_for_a_head,
    "adapters merged": _merged,
    "trained tokens of a tied head": _tokens_of_a_tied_head,
    "a gradient through a frozen model": lambda: Loop(llama(num_hidden_layers=LAYERS)).frozen(),
    "gradients of each sequence": _of_each_sequence,
    "a fused loss in the forward pass": _with_a_fused_loss,
    "weights that are given for a pass": _of_given_weights,
    "two counters": _counted_twice,
    "a loss of an inner state": _inner_state,
    "a class that FSDP made": _of_a_class_of_its_own,
    "a class with a forward pass of its own": partial(_of_a_class_of_its_own, forward=_without_head),
    "some layers wrapped": partial(_wrapped, 1),
    "all layers wrapped": partial(_wrapped, *range(LAYERS)),
    "a cache of a fixed size": partial(_fixed_cache, 4),
    "a cache of a fixed size that is filled": partial(_fixed_cache, 29),
    "another head": _another_head,
    "layers left out": _layers_left_out,
    "layers taken out": _layers_taken_out,
    "early exit": _early_exit,
    "adapters unloaded": _unloaded,
    "frozen from the second step": _frozen_from_the_second_step,
    "frozen before the backward pass": _frozen_before_the_backward_pass,
    "thawed from the second step": _thawed_from_the_second_step,
    "frozen by turns": _frozen_by_turns,
    "LoRA, then its base too": _base_thawed,
    "another adapter": _another_adapter,
    "checkpointed by turns": _checkpointed_by_turns,
    "adapters switched off": _adapters_off,
    "two adapters, evaluated": _two_adapters_evaluated,
    "ranks differ, evaluated": _ranks_differ_evaluated,
    "pretraining of the head": _pretraining_of_the_head,
    "shapes only": partial(_of_shapes_only, by_weights=False),
    "shapes only, by weights": partial(_of_shapes_only, by_weights=True),
    "a tensor without data before the others": _beside_shapes_only,
    "encoded without gradients": _encoded_without_gradients,
    "a tower without gradients": partial(_without_gradients, "gemma3", lambda model: model.model.vision_tower),
    "a tower without gradients, beside reentrant checkpoints": partial(
        _without_gradients, "gemma3", lambda model: model.model.vision_tower, reentrant=True
    ),
    "layers that FSDP 2 shards, cut off": _sharded_and_cut,
    "a layer without gradients": partial(_without_gradients, "llama", lambda model: model.model.layers[1]),
    "a layer without gradients, after passes for nothing": partial(
        _without_gradients, "llama", lambda model: model.model.layers[1], unused=2
    ),
    "layers without gradients at times": partial(alternating, _recorded_in_part),
    "layers without gradients at last": partial(alternating, _recorded_in_part, 6),
    "layers recomputed at times": partial(alternating, _recomputed_at_times),
    "gradients of both ends at times": partial(alternating, _of_some_weights_at_times),
    "gradients of both ends at last": partial(alternating, _of_some_weights_at_times, 6),
    "parts of layers without gradients": _parts_without_gradients,
    "layers without gradients beside a whole pass": _beside_a_whole_pass,
    "layers cut off beside a cache of a whole pass": _beside_a_cache_of_a_whole_pass,
    "a function without a gradient": partial(_stopped, by_weights=False),
    "a function without a gradient, by the weights": partial(_stopped, by_weights=True),
    "gradients of both ends, by the weights": _of_some_weights_by_weights,
    "layers called by the loop": _layers_called_by_the_loop,
    "without dropout": _without_dropout,
    "without dropout, checkpointed": _checkpointed_without_dropout,
    "frozen adapters": _frozen_adapters,
    "an inner state, beside adapters": _inner_state_beside_adapters,
    "layers removed by turns": _layers_removed_by_turns,
    "without dropout, by the weights": _without_dropout_by_weights,
    "recorded for nothing": _recorded_for_nothing,
    "no backward pass": _no_backward_pass,
    "no backward pass of Whisper": lambda: _of_whisper().evaluated(),
    "two passes for one loss": _two_passes_for_one_loss,
    "two backward passes": _backward_twice,
    "lower adapters frozen": _lower_adapters_frozen,
    "a backward pass that fails": _failed_backward,
    "in chunks": _in_chunks,
    "in chunks, beside a cache of a window": partial(_in_chunks, "cohere2"),
    "in chunks, beside a cache of short convolutions": partial(_in_chunks, "lfm2"),
    "the backbone alone": _backbone_alone,
    "layers dropped": _layers_dropped,
    "a pooler that the loss does not read": _pooler_unread,
    "a pooler of images that the loss does not read": _pooler_of_images_unread,
    "a head beside an encoder": _head_beside,
    "T5, beams": partial(_encoded_once, "t5", num_beams=4),
    "BART, no cache": partial(_encoded_once, "bart", use_cache=False, num_beams=1),
    "Gemma 4 leaves a prompt out of the layers that share": partial(_generated, "gemma4_text", 1),
    "a cache of latents": partial(_generated, "deepseek_v3", 12),
    "a cache of states": partial(_generated, "mamba2"),
    "a short convolution": _first_convolution,
    "a copied module inside a copied one": partial(_copies_inside_a_copy, "embeddings"),
    "copied modules inside copied ones of each layer": partial(_copies_inside_a_copy, "mlp", "fc1"),
}


def _of_kind(config: str, **options: Any) -> Loop:
    return Loop(adapted(config, **options)).steps()


def _on_experts() -> Any:
    import peft

    parameters = ["experts.gate_up_proj", "experts.down_proj"]
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], target_parameters=parameters)
    return peft.get_peft_model(build("mixtral"), config)


_QO = {"target_modules": ["q_proj", "o_proj"]}
# Adapters that flopsd does not compute, by their name in the declaration of uncounted work.
KINDS: Mapping[str, Callable[[], Loop]] = {
    "LoRA by DoraLinearVariant": partial(
        _of_kind, "LoraConfig", r=4, target_modules="all-linear", use_dora=True, lora_dropout=0.1
    ),
    "LoRA by ALoraLinearVariant": partial(
        _of_kind, "LoraConfig", r=16, target_modules="all-linear", alora_invocation_tokens=[5], task_type="CAUSAL_LM"
    ),
    "LoRA by ParamWrapper": lambda: Loop(_on_experts()).steps(),
    "LOHA": partial(_of_kind, "LoHaConfig", r=4, target_modules="all-linear"),
    "LOKR": partial(_of_kind, "LoKrConfig", r=4, **_QO),
    "VERA": partial(_of_kind, "VeraConfig", r=64, **_QO),
    "OFT": partial(_of_kind, "OFTConfig", oft_block_size=8, r=0, **_QO),
    "BOFT": partial(_of_kind, "BOFTConfig", boft_block_size=8, **_QO),
    "HRA": partial(_of_kind, "HRAConfig", r=4, **_QO),
    "PROMPT_TUNING": partial(_of_kind, "PromptTuningConfig", task_type="CAUSAL_LM", num_virtual_tokens=20),
    "PREFIX_TUNING": partial(_of_kind, "PrefixTuningConfig", task_type="CAUSAL_LM", num_virtual_tokens=20),
}
