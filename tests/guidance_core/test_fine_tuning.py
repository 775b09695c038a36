"""Fine-tuning: which weights are kept, when it ends, and what it leaves alone."""

import copy
import math
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from guidance_core.fine_tuning import CHECKS, PATIENCE, FineTuning


def data(seed: int = 0, count: int = 32):
    """Two classes on two sides of a line, a fifth of them mislabelled."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.2
    return (x,), (x[:, 0] > 0).logical_xor(flipped).long()


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
        module = nn.Sequential(*layers)
        module(torch.randn(100, 3))  # statistics that are not those of a new network
    return module.eval()


def weights(module: nn.Module) -> dict:
    return copy.deepcopy(module.state_dict())


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def tuning_of(module, held_out=None, learning_rate=0.05, steps=20, objective=F.cross_entropy) -> FineTuning:
    return FineTuning(module, objective, lambda: held_out or [data(1)], learning_rate, steps)


@pytest.mark.parametrize("steps", [7, 20, 50])
def test_keeps_the_weights_with_the_lowest_held_out_loss(steps):
    module, tried = network(), {}
    tuning = tuning_of(module, steps=steps, learning_rate=0.3)
    tried[0] = weights(module)
    tried.update((step, weights(module)) for step in tuning.run(repeat(data())))
    losses = {}
    for step in tuning.held_out_losses:
        (x,), labels = data(1)
        other = network()
        other.load_state_dict(tried[step])
        losses[step] = F.cross_entropy(other(x), labels).item()
    assert tuning.held_out_losses == pytest.approx(losses)
    best = min(losses, key=losses.get)
    assert tuning.best_step == best and tuning.best_loss == pytest.approx(losses[best])
    assert 0 < best < max(tried), "this learning rate should overshoot"
    assert same(weights(module), tried[best])


def test_held_out_batches_count_by_their_pictures():
    """Means over batches of different sizes would be another number."""
    (x,), labels = data(1)
    parts = [((x[:30],), labels[:30]), ((x[30:],), labels[30:])]
    whole, split = (tuning_of(network(), held_out) for held_out in ([data(1)], parts))
    for tuning in (whole, split):
        list(tuning.run(repeat(data())))
    assert split.held_out_losses == pytest.approx(whole.held_out_losses)


def test_checks_at_even_distances_and_at_the_end():
    tuning = tuning_of(network(), steps=2 * CHECKS + 1, learning_rate=1e-4)
    assert list(tuning.run(repeat(data()))) == list(range(1, 2 * CHECKS + 2))
    assert list(tuning.held_out_losses) == [*range(0, 2 * CHECKS + 1, 2), 2 * CHECKS + 1]
    assert list(tuning.losses) == list(range(1, 2 * CHECKS + 2)) and not tuning.stopped


@pytest.mark.parametrize("every", [1, 3])
def test_stops_where_the_held_out_loss_does_not_fall(every):
    """What is held out is the opposite of what it learns."""
    (x,), labels = data()
    module = network()
    before = weights(module)
    tuning = tuning_of(module, [((x,), 1 - labels)], steps=CHECKS * every, learning_rate=0.01)
    done = list(tuning.run(repeat(((x,), labels))))
    assert len(done) == PATIENCE * every
    assert tuning.stopped == f"the held-out loss did not fall for {PATIENCE * every} steps"
    assert tuning.best_step == 0 and same(weights(module), before)


def test_stops_at_a_loss_that_is_no_number():
    module = network()
    broken = ((torch.full((4, 3), math.nan),), torch.zeros(4, dtype=torch.long))
    tuning = tuning_of(module, learning_rate=0.01)
    tried = {step: weights(module) for step in tuning.run(iter([data()] * 4 + [broken] + [data()] * 20))}
    assert list(tried) == [1, 2, 3, 4] and tuning.stopped == "the loss of step 5 is not a finite number"
    assert math.isnan(tuning.losses[5]) and tuning.best_step == 4
    assert same(weights(module), tried[4])


def test_a_loss_that_is_no_number_leaves_the_best_weights():
    """Which are not those of the last step where it has overshot."""
    module = network()
    broken = ((torch.full((4, 3), math.nan),), torch.zeros(4, dtype=torch.long))
    tuning = tuning_of(module, learning_rate=0.3)
    tried = {step: weights(module) for step in tuning.run(iter([data()] * 7 + [broken]))}
    assert 0 < tuning.best_step < max(tried) == 7
    assert same(weights(module), tried[tuning.best_step])


def test_losses_that_stay_keep_the_first_weights_and_say_so():
    module = network()
    before = weights(module)
    tuning = tuning_of(module, steps=CHECKS, objective=lambda logits, labels: 1 + 0 * logits.sum())
    done = list(tuning.run(repeat(data())))
    assert tuning.best_step == 0 and same(weights(module), before)
    assert len(done) == PATIENCE and tuning.stopped == f"the held-out loss did not fall for {PATIENCE} steps"
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_last_step_is_no_stop():
    """Though the loss has not fallen for as long as it is waited for."""
    (x,), labels = data()
    tuning = tuning_of(network(), [((x,), 1 - labels)], steps=PATIENCE, learning_rate=0.01)
    assert len(list(tuning.run(repeat(((x,), labels))))) == PATIENCE and not tuning.stopped


def test_the_steps_without_a_fall_are_counted_from_the_best():
    module, losses = network(), iter([3.0, 2.0, *[4.0] * 100])

    def objective(logits, labels):
        return logits.sum() * 0 + (1.0 if torch.is_grad_enabled() else next(losses))

    tuning = tuning_of(module, steps=CHECKS, objective=objective)
    assert len(list(tuning.run(repeat(data())))) == PATIENCE + 1
    assert tuning.best_step == 1 and tuning.stopped == f"the held-out loss did not fall for {PATIENCE} steps"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_stops_at_a_held_out_loss_that_is_no_number(value):
    module, checks = network(), iter(range(100))

    def held_out():
        (x,), labels = data(1)
        yield (x if next(checks) < 4 else torch.full_like(x, math.nan),), labels

    def objective(logits, labels):
        return F.cross_entropy(logits, labels) if logits.isfinite().all() else torch.tensor(value)

    tuning = FineTuning(module, objective, held_out, 0.01, 20)
    tried = {step: weights(module) for step in tuning.run(repeat(data()))}
    assert list(tried) == [1, 2, 3, 4] and tuning.stopped == "the held-out loss after step 4 is not a finite number"
    assert tuning.best_step == 3 and same(weights(module), tried[3])


def test_weights_that_blow_up_are_not_kept():
    """A finite loss with a gradient that is none: the next loss, or the last check, notices."""

    def objective(logits, labels):
        return F.cross_entropy(logits, labels) + 0 * (logits - logits).sum().sqrt()

    for steps in (1, 20):
        module = network()
        before = weights(module)
        tuning = tuning_of(module, steps=steps, objective=objective)
        assert list(tuning.run(repeat(data()))) == [1]
        assert math.isfinite(tuning.losses[1]) and tuning.stopped == (
            "the held-out loss after step 1 is not a finite number"
        )
        assert tuning.best_step == 0 and same(weights(module), before)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_classifier_that_is_broken_from_the_start(value):
    module = network()
    module[-1].bias.data[0] = value
    before = weights(module)
    with pytest.raises(ValueError, match="held-out pictures is not a finite number before training"):
        next(tuning_of(module).run(repeat(data())))
    assert all(torch.equal(weights(module)[key], before[key]) for key in before if key != "4.bias")


def test_the_same_batches_make_the_same_weights():
    """Whatever torch's own generator is at: dropout is off."""

    def trained(global_seed, data_seed):
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            module = network()
            list(tuning_of(module).run(repeat(data(data_seed))))
        return weights(module)

    first = trained(0, 0)
    assert same(first, trained(1, 0)) and not same(first, trained(0, 2))


def test_statistics_of_batch_normalization_stay():
    module = network()
    before = weights(module)
    list(tuning_of(module).run(repeat(data())))
    after = weights(module)
    statistics = {key for key, _ in module.named_buffers()}
    assert len(statistics) == 3 and same({key: before[key] for key in statistics}, after)
    assert all(not torch.equal(before[key], after[key]) for key, _ in module.named_parameters())
    assert not any(part.training for part in module.modules())
