"""CADS in a real ComfyUI: whose text gets noise, when, how much, and whom it leaves alone."""

import logging
from itertools import pairwise
from types import SimpleNamespace

import comfy.conds
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.model_base import ModelType, model_sampling
from comfy.patcher_extension import WrappersMP

from benchmarks import in_process, random_models, small_networks
from benchmarks.one_step import predict
from benchmarks.tolerance import agree, assert_agree
from guidance_core.condition_annealing import ConditionAnnealing

# Noise alone from the start to t = 0.9, then less and less until t = 0.6; the demo's sigma is t.
EARLY = {"tau1": 0.6, "tau2": 0.9, "noise_scale": 1.0}
NOISE_ALONE = 0.95


def cads(node, model, **inputs):
    return node("EntropyGuidanceCADS", model=model, **{**EARLY, **inputs})[0]


@pytest.fixture(params=["demo", "SD15", "SD3"])
def subject(request, demo, prompts):
    """A model, its conditions, three latents and the sigma of a time."""
    if request.param == "demo":
        model, conditions = demo[0], prompts
    else:
        model, conditions = random_models.build(request.param), random_models.conditions()
    latent = random_models.latent(model, 16, batch=3)
    sampling = model.get_model_object("model_sampling")
    return SimpleNamespace(
        model=model, conditions=conditions, latent=latent, sigma=lambda t: float(sampling.percent_to_sigma(1 - t))
    )


class Spy:
    """A wrapper that sees what the evaluations of a model get: (sigma, conditions) each, and the last schedule."""

    def __init__(self, model):
        self.model, self.seen, self.schedule = model.clone(), [], None
        self.model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "spy", self)

    def __call__(self, executor, model, conds, x, timestep, model_options):
        self.seen.append((timestep[0].item(), conds))
        self.schedule = model_options["transformer_options"].get("sample_sigmas")
        return executor(model, conds, x, timestep, model_options)

    def conditions(self, evaluation=-1, branch=0, entry=0):
        return self.seen[evaluation][1][branch][entry]["model_conds"]

    def text(self, *place, name="c_crossattn"):
        return self.conditions(*place)[name].cond


def same(a, b) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(a, b)]


@pytest.mark.parametrize(
    ("apply_to", "kept"),
    [
        ("positive", [False, True]),
        ("negative", [True, False]),
        ("both", [False, False]),
        ("both, same noise", [False, False]),
    ],
)
def test_the_chosen_branch_changes_and_the_other_keeps_its_bits(node, subject, apply_to, kept):
    model = cads(node, subject.model, apply_to=apply_to)
    latent, sigma = subject.latent, subject.sigma(NOISE_ALONE)
    ordinary, annealed = (predict(m, subject.conditions, latent, sigma) for m in (subject.model, model))
    assert same(ordinary, annealed) == kept
    assert all(prediction.isfinite().all() for prediction in annealed)


@pytest.mark.parametrize(("apply_to", "alike"), [("both", False), ("both, same noise", True)])
def test_one_prompt_on_both_inputs(node, subject, apply_to, alike):
    """As ERG in the place of CFG has it: with the same noise the branches go on reading the same."""
    positive, _ = subject.conditions
    spy = Spy(cads(node, subject.model, apply_to=apply_to))
    predict(spy.model, (positive, positive), subject.latent, subject.sigma(NOISE_ALONE))
    first, second = (spy.text(-1, branch) for branch in (0, 1))
    assert torch.equal(first, second) == alike
    assert not torch.equal(first[0], first[1])  # each picture has its own


@pytest.mark.parametrize("mixing", [1.0, 0.4])
def test_the_prediction_is_the_models_for_the_annealed_text(node, subject, mixing):
    """The oracle: the same model without the node, for a CONDITIONING of the formula's values."""
    spy = Spy(cads(node, subject.model, mixing=mixing, noise_scale=0.7))
    latent, sigma = subject.latent, subject.sigma(0.75)
    annealed = predict(spy.model, subject.conditions, latent, sigma)
    ((text, extra),) = subject.conditions[0]
    if "y" in spy.conditions():
        extra = {**extra, "pooled_output": spy.text(name="y")}
    expected = predict(subject.model, ([[spy.text(), extra]], subject.conditions[1]), latent, sigma)
    assert_agree(annealed[0], expected[0])
    if mixing == 1:
        for seen in spy.text():
            torch.testing.assert_close(torch.stack([seen.mean(), seen.std()]), torch.stack([text.mean(), text.std()]))


@pytest.mark.parametrize("t", [0.601, 0.7, 0.8, 0.899, 0.9, 1.0])
def test_how_much_noise_there_is_at_a_time(node, subject, t):
    spy = Spy(cads(node, subject.model, mixing=0.0, noise_scale=0.5))
    noise = spied_noise(spy, subject, 1.0) / 0.5
    torch.testing.assert_close(noise.mean().item(), 0.0, rtol=0, atol=0.15)
    torch.testing.assert_close(noise.std().item(), 1.0, rtol=0, atol=0.15)
    kept = min(max((0.9 - t) / 0.3, 0), 1)
    text = subject.conditions[0][0][0]
    expected = kept**0.5 * text + 0.5 * (1 - kept) ** 0.5 * noise
    # Times of 1 in 999 and their logarithms are single-precision numbers in a diffusion model.
    torch.testing.assert_close(spied_noise(spy, subject, t), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", [kind for kind in ModelType if not kind.name.startswith("IMG_TO_IMG")])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_share_of_the_prompt_for_every_kind_of_sampling(kind, shift):
    config = SimpleNamespace(sampling_settings={"shift": shift, "sigma_max": 80.0})
    to_sigma = model_sampling(config, kind).percent_to_sigma
    annealing = ConditionAnnealing(tau1=0.35, tau2=0.85)
    for t in (0.05, 0.35, 0.36, 0.5, 0.7, 0.84, 0.85, 0.99):
        kept = annealing.kept_at(float(to_sigma(1 - t)), to_sigma)
        assert kept == pytest.approx(annealing.kept(t), abs=1e-3)
        assert (kept in (0, 1)) == (annealing.kept(t) in (0, 1))


def spied_noise(spy, subject, t):
    sigma = min(subject.sigma(t), float(subject.model.get_model_object("model_sampling").sigma_max))
    predict(spy.model, subject.conditions, subject.latent, sigma)
    return spy.text()


def test_from_tau1_on_nothing_is_changed_copied_or_computed(node, subject):
    untouched = []

    def outermost(executor, model, conds, *args):
        untouched.append(conds)
        return executor(model, conds, *args)

    model = subject.model.clone()
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "outermost", outermost)
    spy = Spy(cads(node, model, apply_to="both"))
    for t in (0.6, 0.59, 0.1):
        ordinary, annealed = (
            predict(m, subject.conditions, subject.latent, subject.sigma(t)) for m in (subject.model, spy.model)
        )
        assert same(ordinary, annealed) == [True, True]
        assert spy.seen[-1][1] is untouched[-1]


def test_until_tau2_the_prompt_is_noise_alone(node, subject):
    model = cads(node, subject.model, mixing=0.0)
    texts = (subject.conditions, subject.conditions[::-1])
    for t in (0.9, 0.97):
        plain, annealed = (
            [predict(m, pair, subject.latent, subject.sigma(t))[0] for pair in texts] for m in (subject.model, model)
        )
        assert not torch.equal(*plain)
        assert torch.equal(*annealed)


def test_pictures_of_a_batch_have_noise_of_their_own(node, subject):
    spy = Spy(cads(node, subject.model))
    latent = subject.latent[:1].expand(3, -1, -1, -1)
    predicted = predict(spy.model, subject.conditions, latent, subject.sigma(NOISE_ALONE))[0]
    batched = spy.text()
    for i in range(3):
        assert not agree(predicted[i], predicted[i - 1])
    alone = predict(spy.model, subject.conditions, latent[:1], subject.sigma(NOISE_ALONE))[0]
    assert_agree(alone[0], predicted[0])
    assert torch.equal(spy.text()[0], batched[0])


def test_the_frames_of_a_batch_that_is_one_video_have_one_noise(node):
    small = small_networks.NETWORKS["SVD_img2vid"]
    model = small_networks.build("SVD_img2vid")
    spy = Spy(cads(node, model))
    predict(spy.model, small.conditions(), torch.zeros(3, 4, 16, 16), sigma=700.0)
    text = spy.text()
    assert len(text) == 3 and torch.equal(text, text[:1].expand_as(text))
    assert not torch.equal(text[:1], small.conditions()[0][0][0])


def test_positive_and_negative_have_different_noise(node, demo, prompts):
    spy = Spy(cads(node, demo[0], apply_to="both", mixing=0.0))
    predict(spy.model, (prompts[0], prompts[0]), sigma=NOISE_ALONE)
    assert (spy.text(0, 0) - spy.text(0, 1)).abs().mean() > 0.5


def test_the_seed_decides(node, demo, prompts, sample):
    first, other = (cads(node, demo[0], seed=seed) for seed in (7, 8))
    drawn = sample(first, *prompts, batch=3)
    assert drawn.isfinite().all()
    assert torch.equal(drawn, sample(first, *prompts, batch=3))
    assert torch.equal(drawn, sample(cads(node, demo[0], seed=7), *prompts, batch=3))
    assert not torch.equal(drawn, sample(other, *prompts, batch=3))
    assert not torch.equal(drawn, sample(demo[0], *prompts, batch=3))


def test_a_step_that_is_evaluated_twice_makes_its_noise_once(node, demo, prompts, sample, monkeypatch):
    """As heun does, but in the last step."""
    wing, made = in_process.pack_module("nodes.sampling.annealed_conditions"), []
    make = wing.seeded_noise
    monkeypatch.setattr(wing, "seeded_noise", lambda *key: made.append(key) or make(*key))
    spy = Spy(cads(node, demo[0], tau1=0.1))
    sample(spy.model, *prompts, steps=4, sampler="heun")
    assert len(spy.seen) == 7 and len(made) == len({*made}) == 4 * 2  # of the tokens, and of all together


def test_each_step_has_noise_of_its_own(node, demo, prompts, sample):
    spy = Spy(cads(node, demo[0], mixing=0.0, tau1=0.1))
    sample(spy.model, *prompts, steps=5)
    texts = [spy.text(i) for i in range(5)]
    for a, b in pairwise(texts):
        assert not torch.equal(a, b)
    for early, late in pairwise((text - prompts[0][0][0]).std() for text in texts):
        assert late < early


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral", "seeds_3"])
def test_samplers_that_evaluate_more_than_once_a_step(node, demo, prompts, sample, sampler):
    """An evaluation between two steps of the schedule has the text of the first; one at a step has that step's."""
    spy = Spy(cads(node, demo[0], mixing=0.0, tau1=0.1))
    sample(spy.model, *prompts, steps=4, sampler=sampler)
    assert len(spy.seen) > 4
    of_step = {}
    for i, (sigma, _) in enumerate(spy.seen):
        step = max(number for number, start in enumerate(spy.schedule) if start >= sigma - 1e-6)
        assert torch.equal(of_step.setdefault(step, spy.text(i)), spy.text(i))
    assert set(of_step) == set(range(4))


@pytest.mark.parametrize("sampler", ["dpm_adaptive", "dpm_fast", "uni_pc", "lcm", "euler_cfg_pp", "sa_solver_pece"])
def test_other_samplers(node, demo, prompts, sample, sampler):
    drawn = sample(cads(node, demo[0], apply_to="both"), *prompts, sampler=sampler, batch=2)
    assert drawn.isfinite().all()
    assert not torch.equal(drawn, sample(demo[0], *prompts, sampler=sampler, batch=2))


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_schedulers(node, demo, prompts, sample, scheduler):
    models = demo[0], cads(node, demo[0])
    assert not torch.equal(*(sample(model, *prompts, scheduler=scheduler) for model in models))


@pytest.mark.parametrize("mixing", [0.0, 1.0])
def test_extremes_of_the_schedule(node, subject, sample, mixing):
    """Noise alone in every step, and a prompt that comes back at once."""
    inputs = {"latent": {"samples": torch.zeros_like(subject.latent)}, "steps": 4}
    for tau1, tau2 in ((0.0, 0.0), (0.0, 1.0), (0.5, 0.5), (1.0, 1.0)):
        model = cads(node, subject.model, mixing=mixing, tau1=tau1, tau2=tau2)
        drawn, ordinary = (sample(m, *subject.conditions, **inputs) for m in (model, subject.model))
        assert drawn.isfinite().all()
        assert torch.equal(drawn, ordinary) == (tau1 == 1)


def test_tau2_at_the_start_hides_the_prompt_in_the_first_step(node, subject):
    spy = Spy(cads(node, subject.model, mixing=0.0, tau1=0.9, tau2=1.0))
    first = spied_noise(spy, subject, 1.0)
    spy.seen.clear()
    noise = Spy(cads(node, subject.model, mixing=0.0))
    assert torch.equal(first, spied_noise(noise, subject, 1.0))


def test_with_erg_in_both_orders(node, demo, prompts, sample):
    def erg(model):
        return node("EntropyGuidanceERG", model=model, temperature=0.1, layers="40%-60%")[0]

    rectified, ordinary = erg(demo[0]), demo[0]
    both = cads(node, rectified)
    alone, together, annealed = (
        predict(model, prompts, sigma=0.8) for model in (rectified, both, cads(node, ordinary))
    )
    assert torch.equal(together[1], alone[1]) and torch.equal(together[0], annealed[0])
    drawn = sample(both, *prompts, batch=2)
    assert torch.equal(drawn, sample(erg(cads(node, ordinary)), *prompts, batch=2))
    assert not torch.equal(drawn, sample(rectified, *prompts, batch=2))


@pytest.mark.parametrize("companion", [("RescaleCFG", {"multiplier": 0.7}), ("APG", {}), ("EasyCache", {})])
def test_with_other_guidance_in_both_orders(node, demo, prompts, sample, companion):
    name, inputs = companion
    after = node(name, model=cads(node, demo[0]), **inputs)[0]
    alone = node(name, model=demo[0], **inputs)[0]
    drawn = sample(after, *prompts, steps=8)
    assert drawn.isfinite().all() and torch.equal(drawn, sample(cads(node, alone), *prompts, steps=8))
    assert not torch.equal(drawn, sample(alone, *prompts, steps=8))


def regional(node, conditioning, x):
    return node("ConditioningSetArea", conditioning=conditioning, width=64, height=128, x=x, y=0, strength=1.0)[0]


def test_regional_prompts_have_noise_of_their_own(node, demo, prompts, sample):
    left, right = regional(node, prompts[0], 0), regional(node, prompts[0], 64)
    positive = node("ConditioningCombine", conditioning_1=left, conditioning_2=right)[0]
    spy = Spy(cads(node, demo[0], apply_to="both", mixing=0.0))
    assert sample(spy.model, positive, prompts[1], batch=2).isfinite().all()
    # ComfyUI gives the negative prompt both regions too.
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    texts = [spy.text(0, branch, entry) for branch, entry in places]
    for i, text in enumerate(texts):
        assert all((text - other).abs().mean() > 0.5 for other in texts[:i])
    assert torch.equal(spy.seen[-1][1][1][2]["model_conds"]["c_crossattn"].cond, prompts[1][0][0])  # t = 1/3


def test_a_region_of_the_positive_prompt_leaves_the_negative_its_bits(node, demo, prompts, sample):
    spies = [Spy(model) for model in (demo[0], cads(node, demo[0]))]
    for spy in spies:
        sample(spy.model, regional(node, prompts[0], 0), prompts[1])
        assert len(spy.seen[0][1][1]) == 2
    for entry in range(2):
        assert torch.equal(spies[0].text(0, 1, entry), spies[1].text(0, 1, entry))
    assert not torch.equal(spies[0].text(0, 0), spies[1].text(0, 0))


SDXL_POOLED = 32


@pytest.fixture(scope="module")
def sdxl():
    with torch.inference_mode():
        network = small_networks.NETWORKS["SDXL"]
        return small_networks.build("SDXL"), network.conditions(), network.latent(2)


@pytest.mark.parametrize("area", [False, True])
@pytest.mark.parametrize("apply_to", ["positive", "negative", "both"])
def test_the_sizes_of_sdxl_stay(node, sdxl, sample, area, apply_to):
    model, (positive, negative), latent = sdxl
    if area:  # the negative prompt gets an entry that has the positive's pooled output and its own values
        positive = regional(node, positive, 0)
    spies = [Spy(m) for m in (model, cads(node, model, apply_to=apply_to))]
    for spy in spies:
        sample(spy.model, positive, negative, latent={"samples": torch.zeros_like(latent)})
    for branch, name in enumerate(("positive", "negative")):
        for entry in range(len(spies[0].seen[0][1][branch])):
            plain, annealed = (spy.text(0, branch, entry, name="y").expand(2, -1) for spy in spies)
            assert torch.equal(plain[:, SDXL_POOLED:], annealed[:, SDXL_POOLED:])
            chosen = apply_to in (name, "both")
            assert torch.equal(plain, annealed) != chosen
            assert chosen == (not torch.equal(annealed[0], annealed[1]))
            if chosen:
                torch.testing.assert_close(annealed[:, :SDXL_POOLED].std(1), plain[:, :SDXL_POOLED].std(1))
                assert not torch.equal(spies[0].text(0, branch, entry), spies[1].text(0, branch, entry))


def test_a_y_without_the_pooled_output_stays(node):
    """Stable Diffusion 2.1 unCLIP has a picture there."""
    network = small_networks.NETWORKS["SD21UnclipL"]
    model = small_networks.build("SD21UnclipL")
    spies = Spy(model), Spy(cads(node, model))
    for spy in spies:
        predict(spy.model, network.conditions(), network.latent(2), sigma=14.0)
    assert torch.equal(spies[0].text(name="y"), spies[1].text(name="y"))
    assert not torch.equal(spies[0].text(), spies[1].text())


def test_what_a_model_puts_behind_the_text_stays():
    """Stable Audio appends two tokens of seconds to its text."""
    text, seconds = torch.randn(1, 6, 8), torch.randn(1, 2, 8)
    whole = torch.cat([text, seconds], dim=1)
    length = in_process.pack_module("nodes.sampling.annealed_conditions")._length_of_text
    assert length("c_crossattn", whole, [{"cross_attn": text}]) == 6
    assert length("c_crossattn", text, [{"cross_attn": text}]) == 6
    assert length("c_crossattn", whole, [{"cross_attn": seconds}]) == 8  # the model made something else of it
    assert length("c_crossattn", whole, [{}]) == 8
    assert length("y", text[:, 0], [{"pooled_output": None}, {}]) == 0


TEXT_OF_OTHERS = {
    "Stable_Cascade_C": ("clip_text", "clip_text_pooled"), "Stable_Cascade_B": ("clip",), "Flux": ("c_crossattn", "y"),
    "HunyuanDiT": ("c_crossattn", "encoder_hidden_states_t5"), "HunyuanVideo": ("c_crossattn", "y"),
    "HiDream": ("c_crossattn", "encoder_hidden_states_llama3", "y"), "HunyuanImage21": ("c_crossattn", "txt_byt5"),
    "SDXLRefiner": ("c_crossattn", "y"), "AuraFlow": ("c_crossattn",), "PixArtSigma": ("c_crossattn",),
    "WAN21_T2V": ("c_crossattn",), "LTXV": ("c_crossattn",), "QwenImage": ("c_crossattn",),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_OF_OTHERS)
def test_all_text_of_other_models(node, name):
    """Every text input gets noise, so that no trace of the prompt is left, and nothing else does."""
    network, model = small_networks.NETWORKS[name], small_networks.build(name)
    prompt, other = network.conditions()
    keys = ("pooled_output", "conditioning_mt5xl", "conditioning_llama3", "conditioning_byt5small")
    texts = {key: other[0][1][key] for key in keys if key in other[0][1]}
    other = [[other[0][0], {**prompt[0][1], **texts}]]
    sigma = float(model.get_model_object("model_sampling").percent_to_sigma(0.05))
    spies = Spy(model), Spy(cads(node, model, mixing=0.0))
    plain, annealed = (
        [predict(spy.model, (text,), network.latent(1), sigma)[0] for text in (prompt, other)] for spy in spies
    )
    assert not torch.equal(*plain)
    assert torch.equal(*annealed)
    before, after = (spy.seen[0][1][0][0]["model_conds"] for spy in spies)
    changed = {key for key in before if after[key] is not before[key] and key in TEXT_OF_OTHERS[name]}
    assert changed == set(TEXT_OF_OTHERS[name])
    for key in before.keys() - changed:
        if torch.is_tensor(before[key].cond):
            assert torch.equal(before[key].cond, after[key].cond)


def test_a_model_without_text_is_an_error(node):
    without_text = [[None, {}]], [[None, {}]]
    model = cads(node, random_models.build("SD15"))
    with pytest.raises(RuntimeError, match="apply_to = 'positive': BaseModel gets no text there that CADS"):
        predict(model, without_text, torch.zeros(1, 4, 16, 16), sigma=14.0)
    network = small_networks.NETWORKS["HiDreamO1"]
    model = cads(node, small_networks.build("HiDreamO1"))
    with pytest.raises(RuntimeError, match="HiDreamO1 gets no text there"):
        predict(model, network.conditions(), network.latent(1), sigma=0.95)


def test_conditions_keep_their_class_dtype_and_everything_else(node, demo, prompts):
    spies = Spy(demo[0]), Spy(cads(node, demo[0]))
    half = [[prompts[0][0][0].half(), prompts[0][0][1]]]
    for spy in spies:
        predict(spy.model, (half, prompts[1]), sigma=NOISE_ALONE)
    before, after = (spy.seen[0][1][0][0] for spy in spies)
    text = after["model_conds"]["c_crossattn"]
    assert type(text) is type(before["model_conds"]["c_crossattn"])
    assert text.cond.dtype == torch.float16 and text.cond.shape == (2, *half[0][0].shape[1:])
    assert after.keys() == before.keys() and after["model_conds"].keys() == before["model_conds"].keys()


def test_the_conditioning_itself_stays(node, demo, prompts, sample):
    before = [conditioning[0][0].clone() for conditioning in prompts]
    sample(cads(node, demo[0], apply_to="both", mixing=0.0), *prompts)
    assert all(torch.equal(text, conditioning[0][0]) for text, conditioning in zip(before, prompts))


def test_a_conditioning_of_several_pictures(node, demo, prompts):
    texts, pooled = torch.cat([prompts[0][0][0], prompts[1][0][0]]), prompts[0][0][1]
    spy = Spy(cads(node, demo[0], mixing=0.0))
    predict(spy.model, ([[texts, pooled]], prompts[1]), torch.zeros(3, 4, 16, 16), sigma=0.75)
    plain = Spy(cads(node, demo[0], mixing=0.0))
    for i, text in enumerate((texts[:1], texts[1:], texts[:1])):
        predict(plain.model, ([[text, pooled]], prompts[1]), torch.zeros(3, 4, 16, 16), sigma=0.75)
        assert torch.equal(spy.text()[i], plain.text()[i])


def test_nodes_that_evaluate_single_conditions_get_the_same_text(node, demo, prompts, sample):
    """Self-attention guidance, skip-layer guidance and others evaluate one branch again, at whatever place."""
    again = []

    def post_cfg(args):
        for branch, expected in (("uncond", "uncond_denoised"), ("cond", "cond_denoised")):
            copied = [dict(entry) for entry in args[branch]]
            evaluate = comfy.samplers.calc_cond_batch
            (alone,) = evaluate(args["model"], [copied], args["input"], args["sigma"], args["model_options"])
            again.append((alone, args[expected]))
        return args["denoised"]

    model = cads(node, demo[0], apply_to="negative")
    model.set_model_sampler_post_cfg_function(post_cfg)
    sample(model, *prompts, batch=2)
    assert len(again) == 6
    for alone, together in again:
        assert_agree(alone, together)


def test_conditions_that_are_not_the_guiders_stay(node, demo, prompts, sample):
    """The older PerpNeg node evaluates an empty prompt of its own, alone."""
    spy = Spy(cads(node, demo[0]))
    model = node("PerpNeg", model=spy.model, empty_conditioning=prompts[1], neg_scale=1.0)[0]
    sample(model, *prompts, steps=1)
    (_, both), (_, own) = spy.seen
    assert len(both) == 2 and len(own) == 1
    assert torch.equal(own[0][0]["model_conds"]["c_crossattn"].cond, prompts[1][0][0])
    assert not torch.equal(both[0][0]["model_conds"]["c_crossattn"].cond[:1], prompts[0][0][0])


def dual_cfg(node, model, conditions):
    return node(
        "DualCFGGuider", model=model, cond1=conditions[0], cond2=conditions[2], negative=conditions[1], cfg_conds=3.0,
        cfg_cond2_negative=2.0, style="regular",
    )[0]  # fmt: skip


def perp_neg(node, model, conditions):
    return node(
        "PerpNegGuider", model=model, positive=conditions[0], negative=conditions[2], empty_conditioning=conditions[1],
        cfg=3.0, neg_scale=1.0,
    )[0]  # fmt: skip


def our_guider(node, model, conditions):
    return node(
        "EntropyGuidanceGuider", model=model, positive=conditions[0], weak=conditions[1], negative=conditions[2],
        scale=2.0, negative_scale=1.5,
    )[0]  # fmt: skip


@pytest.mark.parametrize(("guider", "positive"), [(dual_cfg, 2), (perp_neg, 0), (our_guider, 0)])
@pytest.mark.parametrize("apply_to", ["positive", "negative"])
def test_guiders_of_three_conditions(node, demo, prompts, encode, guider, positive, apply_to):
    conditions = (*prompts, encode(demo[1], "a green triangle"))
    spies = Spy(demo[0]), Spy(cads(node, demo[0], apply_to=apply_to))
    for spy in spies:
        node(
            "SamplerCustomAdvanced", noise=node("RandomNoise", noise_seed=1)[0],
            guider=guider(node, spy.model, conditions), sampler=node("KSamplerSelect", sampler_name="euler")[0],
            sigmas=node("BasicScheduler", model=demo[0], scheduler="simple", steps=2, denoise=1.0)[0],
            latent_image={"samples": torch.zeros(1, 4, 16, 16)},
        )  # fmt: skip
    for branch in range(3):
        changed = not torch.equal(*(spy.text(0, branch) for spy in spies))
        assert changed == ((branch == positive) == (apply_to == "positive"))


def test_context_windows(node, demo, prompts, sample):
    """Their evaluations get copies of the conditions."""
    windows = {"context_length": 8, "context_overlap": 4, "dim": 3, "context_schedule": "standard_static"}
    spy = Spy(node("ContextWindowsManual", model=cads(node, demo[0]), **windows)[0])
    sample(spy.model, *prompts, steps=1)
    assert len(spy.seen) > 1
    for evaluation in range(len(spy.seen)):
        assert torch.equal(spy.text(evaluation), spy.text(0))
        assert not torch.equal(spy.text(evaluation), prompts[0][0][0])
        assert torch.equal(spy.text(evaluation, 1), prompts[1][0][0])


def test_regions_that_are_evaluated_one_by_one_have_texts_of_their_own_length(node):
    """As context windows evaluate them with split_conds_to_windows, where each is number 0."""
    sampling = in_process.pack_module("nodes.sampling.annealed_conditions")._Sampling()
    for tokens in (40, 90):
        text = torch.ones(1, tokens, 8)
        condition, entries = comfy.conds.CONDCrossAttn(text), [{"cross_attn": text}]
        assert sampling.length_of_text("c_crossattn", condition, entries, "positive", 0) == tokens


def test_a_picture_in_several_windows_over_the_batch_has_one_noise(node, demo, prompts, sample):
    windows = {"context_length": 4, "context_overlap": 2, "dim": 0}
    spies = [Spy(cads(node, demo[0])), Spy(node("ContextWindowsManual", model=cads(node, demo[0]), **windows)[0])]
    for spy in spies:
        sample(spy.model, *prompts, steps=1, batch=6)
    whole, parts = spies[0].text(), [spies[1].text(i) for i in range(len(spies[1].seen))]
    assert [len(part) for part in parts] == [4, 5]  # ComfyUI puts the picture before a window in front of it
    frames = [[same(whole, [picture] * 6).index(True) for picture in part] for part in parts]
    assert {frame for part in frames for frame in part} == set(range(6)) and all(
        part == sorted(part) for part in frames
    )


def guider_of_other_names(model, conditions):
    """As RES4LYF's: a word before the names."""
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"xt_positive": conditions[0], "xt_negative": conditions[1]})

    def predict_noise(x, timestep, model_options={}, seed=None):
        conds = [guider.conds["xt_positive"], guider.conds["xt_negative"]]
        found = comfy.samplers.calc_cond_batch(guider.inner_model, conds, x, timestep, model_options)
        return found[1] + 3.0 * (found[0] - found[1])

    guider.predict_noise = predict_noise
    return guider


@pytest.mark.parametrize(("apply_to", "kept"), [("positive", [False, True]), ("negative", [True, False])])
def test_names_that_begin_with_another_word(node, demo, prompts, apply_to, kept):
    spy = Spy(cads(node, demo[0], apply_to=apply_to))
    guider = guider_of_other_names(spy.model, prompts)
    latent, sampler = torch.zeros(1, 4, 16, 16), comfy.samplers.sampler_object("euler")
    guider.sample(torch.randn(1, 4, 16, 16), latent, sampler, torch.tensor([1.0, 0.0]), seed=0)
    assert [torch.equal(spy.text(0, branch), prompts[branch][0][0]) for branch in range(2)] == kept


def test_two_nodes_in_a_row_both_act(node, sdxl):
    model, conditions, latent = sdxl
    twice = cads(node, cads(node, model, apply_to="negative"), apply_to="positive")
    both = cads(node, model, apply_to="both")
    assert same(*(predict(m, conditions, latent, sigma=14.0) for m in (twice, both))) == [True, True]
    again = Spy(cads(node, cads(node, model, mixing=0.0), mixing=0.0, seed=1))
    once = Spy(cads(node, model, mixing=0.0, seed=1))
    for spy in (again, once):
        predict(spy.model, conditions, latent, sigma=14.0)
    assert torch.equal(again.text(name="y"), once.text(name="y"))  # γ = 0: the second one's noise alone


def test_the_original_and_other_clones_stay_as_they_were(node, demo, prompts, sample):
    other = demo[0].clone()
    before = sample(demo[0], *prompts)
    patched = cads(node, demo[0])
    changed = sample(patched, *prompts)
    assert not torch.equal(before, changed)
    assert torch.equal(before, sample(demo[0], *prompts))
    assert torch.equal(before, sample(other, *prompts))
    assert torch.equal(changed, sample(patched.clone(), *prompts))


def test_an_exception_in_the_middle_of_a_sampling_leaves_nothing_behind(node, demo, prompts, sample):
    patched = cads(node, demo[0])
    expected, alone = sample(patched, *prompts), predict(patched, prompts, sigma=NOISE_ALONE)
    broken = patched.clone()

    def fail(executor, *args):
        raise KeyboardInterrupt

    broken.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", fail)
    with pytest.raises(KeyboardInterrupt):
        sample(broken, *prompts, steps=7)
    assert torch.equal(alone[0], predict(patched, prompts, sigma=NOISE_ALONE)[0])
    assert torch.equal(expected, sample(patched, *prompts))


def test_a_sampling_of_other_steps_has_its_own_schedule(node, demo, prompts, sample):
    patched = cads(node, demo[0])
    expected = sample(patched, *prompts, steps=4)
    sample(patched, *prompts, steps=9)
    assert torch.equal(expected, sample(patched, *prompts, steps=4))


def test_the_way_back_to_noise(node, demo, prompts):
    """FlipSigmas turns the schedule round; the share of the prompt goes with the time all the same."""
    spy = Spy(cads(node, demo[0], mixing=0.0))
    sigmas = torch.tensor([0.0, 0.3, 0.75, 0.95, 1.0])
    node(
        "SamplerCustom", model=spy.model, add_noise=False, noise_seed=1, cfg=1.0, positive=prompts[0],
        negative=prompts[1], sampler=node("KSamplerSelect", sampler_name="euler")[0], sigmas=sigmas,
        latent_image={"samples": torch.ones(1, 4, 16, 16)},
    )  # fmt: skip
    text = prompts[0][0][0]
    shares = [((spy.text(i) * text).sum() / (text * text).sum()).item() for i in range(4)]
    assert shares == pytest.approx([1, 1, 0.5**0.5, 0], abs=0.1)
    assert shares[:2] == [1, 1]


def test_no_noise_is_no_node(node, demo, prompts, sample):
    for inputs in ({"noise_scale": 0.0}, {"tau1": 1.0, "tau2": 1.0}):
        patched = cads(node, demo[0], **inputs)
        assert patched.wrappers == demo[0].wrappers
        assert torch.equal(sample(demo[0], *prompts), sample(patched, *prompts))


@pytest.mark.parametrize(
    ("inputs", "options", "reason"),
    [
        ({"apply_to": "negative"}, {"cfg": 1.0}, "it has no negative branch. A negative one needs cfg above 1"),
        ({}, {"denoise": 0.5}, "no step is as early as tau1 = 0.6 asks for"),
    ],
)
def test_a_sampling_without_effect_is_said_and_keeps_its_bits(
    node, demo, prompts, sample, caplog, inputs, options, reason
):
    latent = {"samples": torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(6))}
    caplog.set_level(logging.WARNING)
    models = demo[0], cads(node, demo[0], **inputs)
    assert torch.equal(*(sample(model, *prompts, latent=latent, **options) for model in models))
    assert f"had no effect in this sampling: {reason}" in caplog.text
    caplog.clear()
    sample(cads(node, demo[0]), *prompts)
    assert "had no effect" not in caplog.text


def test_pictures_from_the_same_start_become_different_ones(node, demo, prompts, sample):
    latent = {"samples": torch.zeros(4, 4, 16, 16), "batch_index": [0, 0, 0, 0]}
    plain, varied = (sample(m, *prompts, steps=8, latent=latent) for m in (demo[0], cads(node, demo[0])))
    assert_agree(plain, plain[:1].expand_as(plain))
    assert varied.std(0).mean() > 0.02


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"noise_scale": -1.0}, "noise_scale = -1.0: it must be a finite number of 0 or more"),
        ({"noise_scale": float("nan")}, "noise_scale = nan"),
        ({"mixing": 1.5}, "mixing = 1.5: it must lie between 0 and 1"),
        ({"tau1": float("nan")}, "tau1 = nan"),
        ({"tau1": 0.9, "tau2": 0.6}, "tau1 = 0.9 and tau2 = 0.6: tau1 must not be above tau2"),
        ({"apply_to": "neither"}, "apply_to = 'neither': it must be one of positive, negative, both"),
    ],
)
def test_bad_input_is_an_error_in_the_nodes_own_words(node, demo, inputs, message):
    with pytest.raises(ValueError, match=message):
        cads(node, demo[0], **inputs)


def test_the_seed_of_the_node_has_control_after_generate(node):
    from nodes import NODE_CLASS_MAPPINGS  # ComfyUI's

    inputs = NODE_CLASS_MAPPINGS["EntropyGuidanceCADS"].INPUT_TYPES()["required"]
    assert list(inputs) == ["model", "noise_scale", "mixing", "tau1", "tau2", "apply_to", "seed"]
    assert inputs["seed"][1]["control_after_generate"] and inputs["seed"][1]["max"] == 2**64 - 1


def test_a_sampler_that_remembers_the_prompt_reads_it_without_noise(node):
    """ar_video keeps what the first step reads of a prompt for all frames, and that step has noise alone."""
    small, model = small_networks.NETWORKS["WAN21_CausalAR_T2V"], small_networks.build("WAN21_CausalAR_T2V")
    latent, prompts = small.latent(1), small.conditions()
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": 1})

    def difference_of_prompts(model):
        first, second = (
            comfy.sample.sample_custom(
                model, latent, 1.0, sampler, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), *conditions, 0 * latent, seed=3
            )
            for conditions in (prompts, prompts[::-1])
        )
        return (first - second).abs().mean()

    with torch.inference_mode():
        plain = difference_of_prompts(model)
        (noisy,) = node("EntropyGuidanceCADS", model=model, noise_scale=0.25, tau1=0.6, tau2=0.9)
        assert difference_of_prompts(noisy) > 0.5 * plain
