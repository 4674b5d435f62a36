"""The state of a training in a checkpoint, held against the training that is to go on from it."""

import inspect
import math
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from cnn_lightning.callbacks import BestCheckpoint
from cnn_lightning.checkpoint_content import Content
from cnn_lightning.classifiers import ImageClassifier, optimization
from cnn_lightning.classifiers.resumed_schedule import ResumedSchedule

# per parameter: the states of torch's optimizers that are as large as the parameter
_LIKE_PARAMETER = {
    *("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg"),
    *("acc_delta", "sum", "exp_inf", "prev", "step_size"),
}
_MOST = 1e15  # far beyond any rate, momentum or sum, and within what torch can take
_SOME_LENGTH = 1000  # steps; the form of a schedule's state does not depend on it
# torch has added and dropped these without effect on what a schedule does
_OPTIONAL = {"verbose", "_get_lr_called_within_step", "_is_initial"}


def check_restorable(content: Content, trainer: L.Trainer) -> None:
    """Refuse a checkpoint whose state of the Trainer is not one: every command restores it.

    Raises:
        UserError: A part is missing, or has another form than this Trainer's own.
    """
    _check_loops(content, trainer)
    _check_callbacks(content, trainer)


def check_resumable(content: Content, classifier: ImageClassifier) -> None:
    """Refuse a checkpoint that a training cannot go on from as it was.

    Raises:
        UserError: The state of optimizer or schedule is missing or of another form, or that of an
            average of weights is.
    """
    _check_average(content)
    if type(classifier).configure_optimizers is ImageClassifier.configure_optimizers:
        _check_optimization(content, classifier)


def go_on_by_epochs(trainer: L.Trainer) -> None:
    """Let a run that `max_steps` limits go on from an epoch's end as one that epochs limit does.

    Lightning takes that epoch for unfinished and goes through its end once more; from then on what
    validation finds is logged a step late.
    """
    trainer.fit_loop._iteration_based_training = _never  # type: ignore[method-assign]


def _never() -> bool:  # no lambda: some strategies send the trainer to new processes
    return False


def _check_average(content: Content) -> None:
    """The weights that were trained, beside an average in their place."""
    trained, more = (content.values.get(key) for key in ("current_model_state", "averaging_state"))
    if trained is None and more is None:
        return
    averaged = content.values["state_dict"]
    content.demand(
        holds=isinstance(trained, dict) and trained.keys() == averaged.keys(),
        what="its trained weights are not those of its average",
    )
    for name, value in averaged.items():
        one = trained[name]  # type: ignore[index]
        content.demand(
            holds=isinstance(one, Tensor) and one.shape == value.shape and one.dtype == value.dtype,
            what=f"{name} in its trained weights is {_describe(one)}",
        )
    content.demand(
        holds=isinstance(more, dict) and more.keys() == {"n_averaged"},
        what="its state of the average is not whole",
    )
    count = more["n_averaged"]  # type: ignore[index]
    content.demand(
        holds=isinstance(count, Tensor)
        and count.shape == ()
        and count.dtype == torch.int64
        and bool(count >= 0),
        what=f"n_averaged is {_describe(count)}",
    )


def _check_optimization(content: Content, classifier: ImageClassifier) -> None:
    values = content.values
    before, *_ = optimization.stored_optimization(values)
    if (
        before["class_path"].rpartition(".")[2]
        != classifier.optimizer["class_path"].rpartition(".")[2]
    ):
        return  # the classifier itself refuses another optimizer
    optimizer = optimization.build_optimizer(before, classifier)
    plain = {key for group in optimizer.param_groups for key in group}
    schedule = optimization.build_schedule(classifier.schedule, optimizer, _SOME_LENGTH)
    states, schedules = values.get("optimizer_states"), values.get("lr_schedulers")
    for name, found in (("optimizer_states", states), ("lr_schedulers", schedules)):
        content.demand(
            holds=isinstance(found, list) and len(found) == 1 and isinstance(found[0], dict),
            what=f"it has no {name}",
        )
    is_as_before = ResumedSchedule(values).is_as(
        classifier.optimizer, classifier.schedule, classifier.schedule_interval
    )
    # a network of another may have parameters that are never used, and so never stepped
    is_ours = type(classifier).__module__.startswith("cnn_lightning.")
    names = None if is_as_before else {*plain, "initial_lr"}
    _check_optimizer(content, states[0], optimizer, names, is_whole=is_ours)  # type: ignore[index]
    known = schedule.state_dict()
    kept = {key: value for key, value in schedules[0].items() if key not in _OPTIONAL}  # type: ignore[index]
    known = {key: value for key, value in known.items() if key not in _OPTIONAL}
    if not is_as_before:  # of the old one, no more is used
        names = {"last_epoch", "base_lrs"} & kept.keys() & known.keys()
        kept, known = _only(names, kept), _only(names, known)
    _check_form(content, kept, known, "the schedule's state")
    place, steps = schedules[0].get("last_epoch", 0), values["global_step"]  # type: ignore[index]
    content.demand(holds=place <= steps, what=f"its schedule is at {place} of {steps} steps")


def _check_loops(content: Content, trainer: L.Trainer) -> None:
    loops = content.values.get("loops")
    if not isinstance(loops, dict):
        raise content.refuse("it has no state of the loops")
    for name in ("fit_loop", "validate_loop", "test_loop", "predict_loop"):
        own, found = getattr(trainer, name).state_dict(), loops.get(name)
        if not isinstance(found, dict):
            raise content.refuse(f"it has no {name}")
        loaders = found.get("state_dict")
        content.demand(
            holds=loaders in ({}, {"combined_loader": []}, {"combined_loader": [{}]}),
            what="its state of the data's order is not this project's",
        )
        _check_form(content, {**found, "state_dict": {}}, {**own, "state_dict": {}}, f"its {name}")
    progress = loops["fit_loop"]
    steps = progress["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    for name, found, done in (
        ("step", content.values["global_step"], steps["total"]["completed"]),
        ("epoch", content.values["epoch"], progress["epoch_progress"]["current"]["completed"]),
    ):
        content.demand(holds=found == done, what=f"it is of {name} {found} and has done {done}")


def _only(names: set[str] | None, values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if names is None or key in names}


def _check_optimizer(
    content: Content,
    state: dict[str, Any],
    optimizer: Optimizer,
    names: set[str] | None,
    *,
    is_whole: bool,
) -> None:
    """The groups, in which `names` must be right, or all there is, and what is kept for each."""
    own = [_only(names, group) for group in optimizer.state_dict()["param_groups"]]
    groups, per_parameter = state.get("param_groups"), state.get("state")
    content.demand(
        holds=isinstance(groups, list) and isinstance(per_parameter, dict),
        what="its optimizer's state is not whole",
    )
    for group in groups or ():
        content.demand(holds=isinstance(group, dict), what="a group of parameters is none")
    kept = [_only(names, group) for group in groups or ()]
    _check_form(content, kept, own, "its optimizer's groups", counts=False)
    content.demand(
        holds=[group["params"] for group in kept] == [group["params"] for group in own],
        what="its optimizer's groups hold other parameters",
    )
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # Muon keeps other things of kernels than of vectors, with or without sides of 1
    shapes = set(map(_small_shape, parameters))
    kind, defaults = type(optimizer), optimizer.defaults
    forms = {shape: _state_after_a_step(kind, defaults, shape) for shape in shapes}
    # OneCycleLR raises a momentum of 0, and what was kept for one stays when it is 0 again
    moving = {**defaults, "momentum": 0.9} if defaults.get("momentum") == 0 else defaults
    forms_with_momentum = {shape: _state_after_a_step(kind, moving, shape) for shape in shapes}
    needed = is_whole and content.values["global_step"] > 0 and all(forms.values())
    for place, one in (per_parameter or {}).items():
        content.demand(
            holds=isinstance(one, dict) and place in range(len(parameters)),
            what="its optimizer's state is not one of each parameter",
        )
        expected = forms[shape := _small_shape(parameters[place])]
        if expected is not None and one.keys() != expected.keys():
            expected = forms_with_momentum[shape]
        content.demand(
            holds=expected is None or one.keys() == expected.keys(),
            what=f"its optimizer's state holds {', '.join(map(str, one))}",
        )
        for name, value in one.items():
            content.demand(
                holds=_fits(name, value, parameters[place])
                and (value is not None or expected is None or expected[name] is None),
                what=f"{name} in its optimizer's state is {_describe(value)}",
            )
    missing = needed and len(per_parameter or ()) < len(parameters)
    content.demand(holds=not missing, what="its optimizer's state lacks parameters")


def _small_shape(parameter: Tensor) -> tuple[int, ...]:
    """The shape of a parameter with sides of at most 2."""
    return tuple(min(side, 2) for side in parameter.shape)


def _state_after_a_step(
    kind: type[Optimizer], defaults: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, Any] | None:
    """What an optimizer keeps for a parameter of such a shape; `None` if none can tell."""
    parameter = torch.nn.Parameter(torch.zeros(shape))
    parameter.grad = torch.zeros_like(parameter)
    arguments = {
        key: value for key, value in defaults.items() if key in inspect.signature(kind).parameters
    }
    try:
        optimizer = kind([parameter], **arguments)
        optimizer.step()
    except TypeError:  # one that needs more arguments, or the loss as a function
        return None
    return dict(optimizer.state[parameter])


def _fits(name: str, value: Any, parameter: Tensor) -> bool:
    if name in _LIKE_PARAMETER and value is not None:
        is_like = isinstance(value, Tensor) and value.shape == parameter.shape
        return is_like and value.dtype.is_floating_point == parameter.dtype.is_floating_point
    if name == "step":
        is_one = not isinstance(value, Tensor) or (value.numel() == 1 and not value.is_complex())
        return is_one and isinstance(value, (int, float, Tensor)) and math.isfinite(value)
    return True


def _check_callbacks(content: Content, trainer: L.Trainer) -> None:
    states = content.values.get("callbacks")
    if not isinstance(states, dict):
        raise content.refuse("it has no state of the callbacks")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning's own
        state = states.get(callback.state_key)
        if state is None:
            continue
        own = callback.state_dict()
        content.demand(
            holds=isinstance(state, dict) and state.keys() >= own.keys(),
            what=f"its state of {type(callback).__name__} is not whole",
        )
        if isinstance(callback, BestCheckpoint):
            _check_best(content, state)
        else:
            for key, value in own.items():
                if value is not None and not (isinstance(value, dict) and not value):
                    place = f"{key} of {type(callback).__name__}"
                    # a new Timer's seconds are a whole 0
                    _check_form(content, state[key], value, place, counts=False)


def _check_best(content: Content, state: dict[str, Any]) -> None:
    kept = state["best_k_models"]
    content.demand(
        holds=isinstance(kept, dict) and len(kept) <= 1, what="it keeps more than one best model"
    )
    scores = [state[key] for key in ("best_model_score", "current_score", "kth_value")]
    for score in (*scores, *kept.values()):
        is_score = isinstance(score, Tensor) and score.shape == () and score.is_floating_point()
        content.demand(holds=score is None or is_score, what="its best score is no number")


def _check_form(
    content: Content, found: Any, known: Any, place: str, *, counts: bool = True
) -> None:
    """Refuse what has not the same keys, lengths and kinds of values as something known.

    Args:
        content: What it is of.
        found: A part of it.
        known: What this training would have there.
        place: What to call it.
        counts: Whether whole numbers are counts; else they may be any numbers.

    Raises:
        UserError: It has another form.
    """
    fits = True
    if isinstance(known, dict):
        fits = isinstance(found, dict) and found.keys() == known.keys()
    elif isinstance(known, (list, tuple)):
        fits = isinstance(found, (list, tuple)) and len(found) == len(known)
    elif isinstance(known, (bool, str, Tensor)):
        fits = isinstance(found, type(known))
    elif isinstance(known, int) and counts:
        fits = isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**62
    elif isinstance(known, (int, float)):
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        fits = is_number and abs(found) < _MOST
    elif known is None:
        fits = found is None or isinstance(found, bool)
    content.demand(holds=fits, what=f"{place} is {_describe(found)}")
    if isinstance(known, dict):
        for key, value in known.items():
            _check_form(content, found[key], value, f"{place}, {key},", counts=counts)
    elif isinstance(known, (list, tuple)):
        for one, other in zip(found, known, strict=True):
            _check_form(content, one, other, place, counts=counts)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {tuple(value.shape)}"
    return repr(value)[:80]
