"""Record Guidance in a real ComfyUI: it changes no bit, and sees what an observer of its own sees."""

import sys
from functools import partial

import comfy.ldm.modules.attention
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from count_waits import CountWaits
from scipy.stats import entropy

from benchmarks import compatibility, random_models, small_networks
from benchmarks.in_process import pack_module
from benchmarks.tolerance import assert_agree
from tests.nodes.attention.test_compiled import compiler  # noqa: F401
from tests.nodes.sampling.test_guider import conditions, draw, dual_cfg, our_guider, perp_neg  # noqa: F401
from tests.support.newer_attention import ComfyAttention, newer_call_sites, rounding

OVERRIDE = "optimized_attention_override"


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.1, "layers": "40%-60%", **inputs})[0]


def record(node, model):
    """The recorded model, and a function that gives the record of what it drew."""
    recorded, recorder = node("EntropyGuidanceRecord", model=model)
    return recorded, recorder.of


def branch_of_its_own(node, model):
    return erg(node, model, scale=0.8)


def flatness(node, model):
    return erg(node, model, flatness=0.3, layers="all")


def more_steps(node, model):
    return erg(node, model, iterations=2, step_size=0.8)


def in_a_window(node, model):
    return erg(node, model, scale=0.8, start_percent=0.3, end_percent=0.7, outside="no guidance")


def cads(node, model):
    return node("EntropyGuidanceCADS", model=erg(node, model))[0]


def pag_after_erg(node, model):
    return node("PerturbedAttentionGuidance", model=erg(node, model))[0]


def recorded_before_erg(node, model):
    return erg(node, record(node, model)[0], scale=0.8)


def plain(node, model):
    return model


def classified(node, model, every=1, labels="blue", **inputs):
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels=labels)[0]
    vae = node("EntropyGuidanceLoadDemo")[2]
    return node("EntropyGuidanceApply", model=model, score=score, vae=vae, every=every, **inputs)[0]


CHAINS = [
    plain, erg, branch_of_its_own, flatness, more_steps, in_a_window, cads, pag_after_erg, recorded_before_erg, classified,
]  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_recording_changes_no_bit(node, demo, prompts, sample, chain, cfg):
    model = chain(node, demo[0])
    before = sample(model, *prompts, cfg=cfg, batch=2)
    recorded, of = record(node, model)
    drawn = sample(recorded, *prompts, cfg=cfg, batch=2)
    assert torch.equal(drawn, before) and of(drawn).steps == 3
    assert torch.equal(sample(model, *prompts, cfg=cfg, batch=2), before)


@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler(node, demo, prompts, sample, sampler):
    model = branch_of_its_own(node, demo[0])
    recorded, of = record(node, model)
    drawn = sample(recorded, *prompts, steps=4, sampler=sampler)
    assert torch.equal(drawn, sample(model, *prompts, steps=4, sampler=sampler))
    seen = of(drawn)
    steps = (0, 1, 2) if sampler in ("dpm_fast", "dpm_adaptive") else (0, 1, 2, 3)  # which have steps of their own
    assert seen.size.steps == steps and seen.size.values.isfinite().all()
    for of_branch in seen.entropy.values():
        assert {*of_branch.steps} <= {*steps} and of_branch.values.isfinite().all()
        assert of_branch.steps == steps or len(steps) == 3


def predictions_of(model):
    """The guider's conditions' predictions in each evaluation, in a list that a sampling fills."""
    seen = []

    def look(args):
        seen.append([x0 if x0 is None else x0.clone() for x0 in args["conds_out"]])
        return args["conds_out"]

    model.set_model_sampler_pre_cfg_function(look)
    return seen


@pytest.mark.parametrize("cfg", [2.0, 0.5])
def test_size_and_angle_are_those_of_cfg(node, demo, prompts, sample, cfg):
    model, of = record(node, demo[0])
    seen = predictions_of(model)
    found = of(sample(model, *prompts, cfg=cfg, batch=2, steps=4))
    for i, (positive, negative) in enumerate(seen):
        positive, negative = positive.double().flatten(1), negative.double().flatten(1)
        guidance = (cfg - 1) * (positive - negative)
        size = guidance.norm(dim=1) / positive.norm(dim=1)
        cosine = torch.nn.functional.cosine_similarity(guidance, positive)
        torch.testing.assert_close(found.size.values[i].double(), size, rtol=1e-3, atol=0)
        torch.testing.assert_close(found.angle.values[i].double(), cosine.acos().rad2deg(), rtol=0, atol=0.1)


def test_guidance_has_the_part_of_a_branch_of_its_own(node, demo, prompts, sample):
    """At cfg 1 it is ERG's alone, in proportion to its scale."""
    found = []
    for scale in (0.2, 0.4):
        model, of = record(node, erg(node, demo[0], scale=scale))
        found.append(of(sample(model, *prompts, cfg=1.0, steps=1)))
    assert_agree(found[1].size.values, 2 * found[0].size.values)
    assert found[0].size.values.gt(0).all()


def test_at_cfg_1_there_is_no_guidance(node, demo, prompts, sample):
    model, of = record(node, demo[0])
    found = of(sample(model, *prompts, cfg=1.0))
    assert not found.size.values.any() and found.angle.values.isnan().all() and list(found.entropy) == ["positive"]


class Watch:
    """An attention override beneath all others that keeps what attention gets."""

    def __init__(self, model):
        self.calls = []
        model.model_options["transformer_options"][OVERRIDE] = self.watch

    def watch(self, attention, q, k, v, heads, *args, transformer_options, **kwargs):
        key = tuple(transformer_options.get(name) for name in ("block_type", "block_index"))
        self.calls.append((key, tuple(transformer_options["cond_or_uncond"]), q.clone(), k.clone()))
        return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)


def whole_entropy(q, k) -> float:
    """By scipy in float64, of [H, N, D] queries and keys: over all heads and queries, relative to the highest."""
    logits = q.double() @ k.double().transpose(-1, -2) * q.shape[-1] ** -0.5
    return float(entropy(logits.softmax(-1).numpy(), axis=-1, base=k.shape[-2]).mean())


@pytest.mark.parametrize("share_trunk", [True, False])
@pytest.mark.parametrize(("inputs", "weak"), [({}, "negative"), ({"scale": 0.8}, "weak (ERG)")])
@pytest.mark.parametrize(("everything", "tolerance"), [(True, 1e-4), (False, 0.06)])
def test_entropy_is_that_of_the_queries_as_erg_scales_them(
    node, demo, prompts, sample, monkeypatch, share_trunk, inputs, weak, everything, tolerance
):
    """Of all heads and queries, and of the few that are measured as a rule: those are an estimate."""
    if everything:
        probe = pack_module("nodes.attention.entropy_probe")
        monkeypatch.setattr(probe, "HEADS", 1000)
        monkeypatch.setattr(probe, "QUERIES", 100_000)
    model = demo[0].clone()
    watch = Watch(model)
    # The same condition on both sides, so that the trunk is shared with the negative branch, too.
    both, cfg = (prompts[0], prompts[0]), 1.0 if inputs else 2.0
    model = erg(node, model, layers="5-6", share_trunk=share_trunk, **inputs)
    sample(model, *both, cfg=cfg, steps=1)  # learns the network, and tries what is shared
    watch.calls.clear()
    recorded, of = record(node, model)
    found = of(sample(recorded, *both, cfg=cfg, steps=1))
    assert list(found.entropy) == ["positive", weak] and len(watch.calls) == 12
    for layer, (_, chunks, q, k) in enumerate(watch.calls):
        rows = {"positive": len(chunks) - 1 if chunks[-1] == 0 and weak == "negative" else 0, weak: 0}
        if len(chunks) == 2:  # the weak branch is in this call, too
            place = chunks.index(0) if weak == "negative" else 1
            rows = {"positive": place, weak: 1 - place}
        for name, row in rows.items():
            expected = whole_entropy(q[row], k[row])
            assert found.entropy[name].values[layer, 0].item() == pytest.approx(expected, abs=tolerance), (name, layer)
    changed = found.entropy[weak].values - found.entropy["positive"].values
    assert changed[5:7].min() > 0.03 and changed[:5].abs().max() < 1e-3


def test_the_layers_are_those_that_erg_chooses(node, demo, prompts, sample):
    for layer in (0, 3, 11):
        model, of = record(node, erg(node, demo[0], temperature=0.0, layers=str(layer)))
        found = of(sample(model, *prompts, steps=1)).entropy["negative"].values[:, 0]
        assert_agree(found[layer], torch.tensor(1.0))
        assert (found > 0.999).sum() == 1


@pytest.mark.parametrize(
    ("guider", "names"),
    [
        (our_guider, ["positive", "negative", "weak"]),
        (dual_cfg("regular"), ["positive", "middle", "negative"]),
        (perp_neg, ["positive", "empty_negative_prompt", "negative"]),
    ],
)
def test_guiders_of_three_conditions(node, demo, conditions, draw, guider, names):  # noqa: F811
    model, of = record(node, demo[0])
    drawn = draw(guider(node, model, conditions))
    assert torch.equal(drawn, draw(guider(node, demo[0], conditions)))
    found = of(drawn)
    assert list(found.entropy) == names and found.size.values.gt(0).all()


def test_a_guider_without_a_positive_condition(node, demo, prompts, draw):  # noqa: F811
    from tests.nodes.sampling.test_guider import GuiderWithoutPositive

    model, of = record(node, demo[0])
    guider = GuiderWithoutPositive(model)
    guider.inner_set_conds({"a": prompts[0]})
    assert of(draw(guider)).size is None


def test_the_steps_of_a_long_sampling(node, demo, prompts, sample):
    model, of = record(node, demo[0])
    found = of(sample(model, *prompts, steps=15))
    chosen = (0, 2, 4, 6, 8, 10, 12, 14)
    assert found.entropy["positive"].steps == found.entropy["negative"].steps == chosen
    assert tuple(step for step, _ in found.predictions) == chosen and found.size.steps == tuple(range(15))


def spying_on(kind):
    """A class that keeps what its objects return, and that."""
    seen = []

    class Spy(kind):
        def __call__(self, *args):
            seen.append(super().__call__(*args))
            return seen[-1]

    return Spy, seen


@pytest.mark.parametrize("every", [1, 3])
def test_a_classifier_is_seen(node, demo, prompts, sample, every):
    model = classified(node, demo[0], every=every)
    (sampling,) = model.get_wrappers(WrappersMP.OUTER_SAMPLE, "entropy_guidance_apply")
    gradient = sampling.__self__.gradient
    gradient.__class__, seen = spying_on(type(gradient))
    recorded, of = record(node, model)
    found = of(sample(recorded, *prompts, batch=2, steps=6))
    (curves,) = found.classifiers
    assert curves.confidence.steps == curves.gradient.steps == tuple(range(every // 2, 6, every))
    for i, (slope, log_p) in enumerate(seen):
        assert_agree(curves.confidence.values[i], log_p.exp())
        assert_agree(curves.gradient.values[i], slope.square().flatten(1).sum(1).sqrt())


@pytest.mark.parametrize("every", [1, 2])
def test_each_of_two_classifiers_is_seen_by_itself(node, demo, prompts, sample, every):
    model, seen = classified(node, demo[0], every=3, labels="yellow"), {}
    model = classified(node, model, labels="blue", every=every)
    for wrapper in model.get_wrappers(WrappersMP.OUTER_SAMPLE, "entropy_guidance_apply"):
        gradient = wrapper.__self__.gradient
        gradient.__class__, seen[gradient.wanted(1)[0]] = spying_on(type(gradient))
    recorded, of = record(node, model)
    found = {curves.wanted: curves for curves in of(sample(recorded, *prompts, steps=6)).classifiers}
    assert found.keys() == {"'yellow'", "'blue'"}
    assert found["'blue'"].confidence.steps == tuple(range(every // 2, 6, every))
    assert found["'yellow'"].confidence.steps == (1, 4)
    for wanted, values in seen.items():
        curve = found[f"'{wanted}'"].confidence.values
        assert_agree(curve, torch.stack([log_p.exp() for _, log_p in values]))


def test_each_of_two_branches_of_their_own_is_seen_by_itself(node, demo, prompts, sample):
    def erg(model, layers):
        inputs = {"temperature": 0.0, "layers": layers, "scale": 0.5}
        return node("EntropyGuidanceERG", model=model, **inputs)[0]

    model, of = record(node, erg(erg(demo[0], "7"), "8"))
    found = of(sample(model, *prompts, steps=1, cfg=1.0)).entropy
    assert [*found] == ["positive", "weak (ERG) 1", "weak (ERG) 2"]
    for name, layer in (("weak (ERG) 1", 7), ("weak (ERG) 2", 8)):
        uniform = found[name].values[:, 0] > 0.999
        assert uniform[layer] and uniform[7:9].sum() == 1


def test_a_sampler_that_evaluates_at_its_end_has_no_step_more(node, demo, prompts):
    model, of = record(node, demo[0])
    (drawn,) = node(
        "KSamplerAdvanced", model=model, add_noise="enable", noise_seed=1, steps=8, cfg=3.0, sampler_name="heun",
        scheduler="simple", positive=prompts[0], negative=prompts[1], latent_image={"samples": torch.zeros(1, 4, 16, 16)},
        start_at_step=0, end_at_step=4, return_with_leftover_noise="enable",
    )  # fmt: skip
    found = of(drawn["samples"])
    assert found.steps == 4 and found.size.steps == (0, 1, 2, 3)


def test_the_papers_sampler_is_seen(node, demo, prompts):
    classifier = node("EntropyGuidanceLoadClassifier", classifier_name="entropy-guidance-demo")[0]
    score = node("EntropyGuidanceScore", classifier=classifier, labels="blue")[0]
    recorded, of = record(node, demo[0])
    drawn = node(
        "SamplerCustom", model=recorded, add_noise=True, noise_seed=1, cfg=1.0, positive=prompts[0], negative=prompts[1],
        sampler=node("EntropyGuidanceDDPMSampler", score=score, vae=demo[2])[0],
        sigmas=node("BasicScheduler", model=recorded, scheduler="simple", steps=4, denoise=1.0)[0],
        latent_image={"samples": torch.zeros(2, 4, 16, 16)},
    )  # fmt: skip
    found = of(drawn[0]["samples"])
    (curves,) = found.classifiers
    assert curves.confidence.steps == (0, 1, 2, 3) and curves.confidence.values.shape == (4, 2)
    assert of(drawn[1]["samples"]) is found  # the second output, denoised


@pytest.mark.parametrize("chain", [plain, branch_of_its_own, classified])
def test_no_step_waits_for_the_device(node, demo, prompts, sample, chain):
    counts = []
    for make in (lambda model: model.clone(), lambda model: record(node, model)[0]):
        model, counter = make(chain(node, demo[0])), CountWaits()

        def within(executor, *args, counter=counter, **kwargs):
            with counter.counting():
                return executor(*args, **kwargs)

        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "test", within)
        sample(model, *prompts)
        counter.count = 0  # the first one learnt the network
        sample(model, *prompts)
        counts.append(counter.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_compiled_network_stays_as_it_is(node, demo, prompts, sample, compiler, order):  # noqa: F811
    inputs = {"temperature": 0.1, "layers": "all"}
    compiled = compiler.compile(erg(node, demo[0], **inputs))
    expected = sample(compiled, *prompts)
    graphs = len(compiler.graphs)
    if order == "before":
        recorded, of = record(node, compiled)
        plain = compiler.compile(demo[0])
        sample(plain, *prompts)
        graphs = len(compiler.graphs)
        assert torch.equal(sample(record(node, plain)[0], *prompts), sample(plain, *prompts))
    else:
        recorded, of = record(node, erg(node, demo[0], **inputs))
        recorded = compiler.compile(recorded)
        sample(recorded, *prompts)
        graphs = len(compiler.graphs)
    drawn = sample(recorded, *prompts)
    assert torch.equal(drawn, expected) and len(compiler.graphs) == graphs
    found = of(drawn)
    assert not found.entropy and found.why_no_entropy == "the network is compiled"
    assert found.size.values.gt(0).all()


def test_two_records_in_a_row(node, demo, prompts, sample):
    first, of_first = record(node, demo[0])
    second, of_second = record(node, first)
    drawn = sample(second, *prompts)
    assert torch.equal(drawn, sample(demo[0], *prompts))
    a, b = of_first(drawn), of_second(drawn)
    assert torch.equal(a.size.values, b.size.values)
    for name in ("positive", "negative"):
        assert_agree(a.entropy[name].values, b.entropy[name].values)


def test_a_sampling_that_fails_leaves_no_record(node, demo, prompts, sample):
    recorded, of = record(node, demo[0])

    def fail(args):
        raise RuntimeError("stop")

    failing = recorded.clone()
    failing.set_model_sampler_post_cfg_function(fail)
    with pytest.raises(RuntimeError, match="stop"):
        sample(failing, *prompts)
    with pytest.raises(ValueError, match="nothing was sampled with the recorded model"):
        of(torch.zeros(1, 4, 16, 16))
    assert of(sample(recorded, *prompts)).steps == 3


@pytest.mark.parametrize("words", ["MPS backend out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED"])
def test_a_want_of_memory_is_not_taken_for_a_network_out_of_reach(node, sample, words):
    """In the evaluation in which a network's layers are learnt."""
    model, failed = random_models.build("SD15"), []

    def fail_once(*_):
        if not failed:
            failed.append(RuntimeError(words))
            raise failed[0]

    model.model.diffusion_model.register_forward_pre_hook(fail_once)
    recorded, of = record(node, model)
    with pytest.raises(RuntimeError, match=words):
        sample(recorded, *random_models.conditions(), steps=1)
    assert of(sample(recorded, *random_models.conditions(), steps=1)).entropy


def test_each_latent_has_its_own_record(node, demo, prompts, sample):
    """Two samplings with one recorded model, and another node's beside it."""
    recorded, of = record(node, demo[0])
    other, of_other = record(node, demo[0])
    drawn = [sample(recorded, *prompts, seed=seed, steps=seed) for seed in (2, 3)]
    elsewhere = sample(other, *prompts, seed=4)
    assert [of(latent).steps for latent in drawn] == [2, 3]
    assert of(drawn[0].to(torch.bfloat16)).steps == 2  # as ComfyUI may keep it
    for wrong in (elsewhere, drawn[0] + 1, drawn[0][:, :, :8]):
        with pytest.raises(ValueError, match="none of the last 2 recorded samplings drew it"):
            of(wrong)
    assert of_other(elsewhere).steps == 3


def test_a_pack_that_samples_twice_at_once_has_a_record_of_each(node, demo, prompts, sample):
    """As AnimateDiff-Evolved does: a wrapper that has the rest of a sampling done several times, with the same options."""
    seen, drawn, model = [], [], demo[0].clone()

    def twice(executor, *args, **kwargs):
        for _ in range(2):
            drawn.append(executor(*args, **kwargs))
            options = executor.class_obj.model_options
            seen.append(
                [
                    len(of_key)
                    for kind in options["transformer_options"]["wrappers"].values()
                    for of_key in kind.values()
                ]
            )
        return drawn[-1]

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "another pack", twice)
    recorded, of = record(node, model)
    sample(recorded, *prompts)
    assert torch.equal(*drawn) and seen[0] == seen[1]
    assert len(of(drawn[1]).size.values) == 3


def test_the_nearest_of_similar_samplings(node, demo, prompts, sample):
    """One draws nearly what the other does."""
    recorded, of = record(node, demo[0])
    first = sample(recorded, *prompts, cfg=3.0, steps=2)
    second = sample(recorded, *prompts, cfg=3.001, steps=2)
    assert of(first).size.values.tolist() != of(second).size.values.tolist()
    assert of(first) is not of(second)


def test_the_last_samplings_are_remembered(node, demo, prompts, sample):
    remembered = pack_module("nodes.recording.recorder").REMEMBERED
    recorded, of = record(node, demo[0])
    drawn = [sample(recorded, *prompts, seed=seed, steps=1) for seed in range(remembered + 1)]
    assert of(drawn[1]).steps == 1
    with pytest.raises(ValueError, match=f"none of the last {remembered} recorded samplings drew it.* longer ago"):
        of(drawn[0])


def test_a_broken_picture_has_a_plot(node, demo, prompts, sample):
    model, recorder = node("EntropyGuidanceRecord", model=demo[0])

    def broken(args):
        return args["denoised"] * float("nan")

    model.set_model_sampler_post_cfg_function(broken)
    drawn = sample(model, *prompts)
    assert drawn.isnan().all()
    assert node("EntropyGuidancePlot", record=recorder, latent={"samples": drawn})[0].isfinite().all()


def one_of_each_network() -> list[str]:
    names = [name for name in compatibility.model_names() if name in small_networks.NETWORKS]
    return list({type(small_networks.build(name).model.diffusion_model): name for name in reversed(names)}.values())


class OnePrediction(comfy.samplers.Sampler):
    """A sampler whose result is the guided prediction for its noise."""

    def sample(self, guider, sigmas, extra_args, callback, noise, *_, **__):
        return guider(noise, sigmas[0].expand(len(noise)), **extra_args)


def guided(model, conditions, latent):  # noqa: F811
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*conditions)
    guider.set_cfg(2.5)
    drawn = guider.sample(latent, latent * 0, OnePrediction(), torch.tensor([0.6, 0.0]))
    return drawn.unbind()[0] if drawn.is_nested else drawn


# Whose batch is packed, and attention that is told nothing of whose rows it has.
UNMEASURED = {"SeedVR2"}


def test_on_every_network(node):
    """To the bit with and without ERG, and with the entropy of both branches in each of its layers."""
    known_map = pack_module("nodes.attention.layers").known_map
    wrong = {}
    for name in one_of_each_network():
        small, model = small_networks.NETWORKS[name], small_networks.build(name)
        draw_it = partial(guided, conditions=small.conditions(), latent=small.latent(small.most))
        for make in (plain, partial(erg, temperature=0.1, layers="all")):
            changed = make(node, model)
            recorded, of = record(node, changed)
            draw_it(changed)
            before, drawn = draw_it(changed), draw_it(recorded)
            found = of(drawn)
            layers = len(known_map(model.model.diffusion_model).numbers)
            whole = all(m.values.isfinite().all() and len(m.values) == layers for m in found.entropy.values())
            if not torch.equal(before, drawn) or list(found.entropy) != ["positive", "negative"] or not whole:
                wrong[name] = torch.equal(before, drawn), list(found.entropy), found.why_no_entropy
    assert wrong.keys() == UNMEASURED and all(same_bits for same_bits, *_ in wrong.values()), wrong


@pytest.mark.parametrize("name", ["SD15", "Flux", "PixArtSigma", "SD3"])
@pytest.mark.parametrize("functions", [(None,), (rounding,), (rounding, None)])
def test_the_attention_that_a_checkpoint_prefers_stays(node, monkeypatch, name, functions):
    """ComfyUI 0.40 forgets it where there is an override."""
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    monkeypatch.setattr(comfy.ldm.modules.attention, "ComfyAttention", ComfyAttention, raising=False)
    for i, function in enumerate(functions):
        if function is not None or len(functions) > 1:
            model.model.diffusion_model.add_module(f"holder{i}", ComfyAttention(function))
    recorded, of = record(node, model)
    draw_it = partial(guided, conditions=small.conditions(), latent=small.latent(small.most))
    with newer_call_sites(monkeypatch, ComfyAttention(functions[0]) if functions[0] else None):
        before, drawn = draw_it(model), draw_it(recorded)
    assert torch.equal(before, drawn)
    assert bool(of(drawn).entropy) == (len(functions) == 1)


def test_matplotlib_is_asked_for(node, demo, prompts, sample, monkeypatch):
    model, recorder = node("EntropyGuidanceRecord", model=demo[0])
    drawn = {"samples": sample(model, *prompts)}
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        node("EntropyGuidancePlot", record=recorder, latent=drawn)
