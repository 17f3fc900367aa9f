"""Hooks: gone after every exception, only our own, and the model is as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from interp.errors import SiteError
from interp.models import Intervention, Model
from interp.models.architecture import Location
from interp.models.hooks import Frame, Stop, reading, writing
from interp.models.tensor_views import Whole
from interp.sites import resid_post
from tests.interp.models.conftest import PROMPTS


def hook_count(model: nn.Module) -> int:
    """Count every hook of every module."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def state(model: nn.Module) -> tuple:
    """Describe all a run might leave behind."""
    flags = tuple((module.training, frozenset(module.__dict__)) for module in model.modules())
    weights = tuple((p.data_ptr(), p._version, p.requires_grad, p.grad is None) for p in model.parameters())
    return hook_count(model), flags, weights, model.config.to_json_string(), model.config._attn_implementation


ACTIONS: dict[str, Callable[[Model], object]] = {
    "capture": lambda model: model.capture(PROMPTS, ["resid_post.*", "z.*", "pattern.*"], "all"),
    "run": lambda model: model.run(
        PROMPTS, interventions=[Intervention("attn_out.0", 0.0)], capture="resid_post.*"
    ),
    "grad": lambda model: model.run(PROMPTS, capture="resid_post.*", positions="all", grad=True),
    "generate": lambda model: model.generate(PROMPTS, max_new_tokens=3, capture="resid_post.*"),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_a_model_is_left_as_found(model: Model, action: str) -> None:
    before = state(model.hf)
    ACTIONS[action](model)
    assert state(model.hf) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, torch.OutOfMemoryError])
@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_left_after_an_exception_in_any_layer(
    llama: Model, action: str, error: type[BaseException]
) -> None:
    before = state(llama.hf)
    for block in llama.architecture.blocks:
        for module in (block, block.self_attn, block.mlp, block.mlp.down_proj):

            def fail(*given: object) -> None:
                raise error("injected")

            handle = module.register_forward_hook(fail)
            with pytest.raises(BaseException, match=r"injected|memory"):
                ACTIONS[action](llama)
            handle.remove()
            assert state(llama.hf) == before


def test_an_exception_in_the_users_function_leaves_nothing(llama: Model) -> None:
    before = state(llama.hf)
    with pytest.raises(ZeroDivisionError):
        llama.run(PROMPTS, interventions=[Intervention("resid_post.1", lambda x: x * (1 // 0))])
    assert state(llama.hf) == before


def test_a_partial_installation_is_undone(llama: Model) -> None:
    class Refusing(nn.Module):
        def register_forward_hook(self, *given: object, **named: object) -> object:  # type: ignore[override]
            raise MemoryError("cannot install")

    before = hook_count(llama.hf)
    places = {
        resid_post(n): Location(block, "out", Whole()) for n, block in enumerate(llama.architecture.blocks)
    }
    places[resid_post(9)] = Location(Refusing(), "out", Whole())
    with pytest.raises(MemoryError), reading(places, Frame()):
        pass
    assert hook_count(llama.hf) == before


def test_the_users_own_hooks_survive_and_see_the_run(llama: Model) -> None:
    seen: list[int] = []
    handle = llama.architecture.blocks[1].register_forward_hook(lambda *given: seen.append(1))
    llama.capture(PROMPTS[:1], "resid_post.*")
    with pytest.raises(SiteError):
        llama.capture(PROMPTS[:1], "resid_post.99")
    assert seen == [1]
    llama.hf(torch.tensor([[5]]))
    assert seen == [1, 1]
    handle.remove()


def test_stop_is_no_exception_that_a_model_could_swallow() -> None:
    assert issubclass(Stop, BaseException) and not issubclass(Stop, Exception)


def test_control_a_leaked_hook_would_be_seen(llama: Model) -> None:
    before = state(llama.hf)
    handle = llama.architecture.blocks[0].register_forward_hook(lambda *given: None)
    assert state(llama.hf) != before
    handle.remove()
    assert state(llama.hf) == before


def test_contexts_nest_and_read_what_was_written(llama: Model) -> None:
    from interp.models.hooks import Writer

    place = Location(llama.architecture.blocks[1], "out", Whole())
    frame = Frame(batch=1, width=3)
    writer = Writer(resid_post(1), place, lambda current: current * 2)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), reading({resid_post(1): place}, frame) as plain:
        llama.hf(ids)
    once = plain[resid_post(1)].clone()
    with torch.no_grad(), writing([writer], frame), reading({resid_post(1): place}, frame) as found:
        llama.hf(ids)
    assert torch.equal(found[resid_post(1)], once * 2)


def test_memory_stays_flat(llama: Model) -> None:
    """Frames, results and graphs of a hundred runs are not kept anywhere."""
    import gc

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    for action in ACTIONS.values():
        action(llama)
    before = tensors()
    for _ in range(5):
        for action in ACTIONS.values():
            action(llama)
    assert tensors() == before
