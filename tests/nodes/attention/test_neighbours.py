"""ERG beside other packs' ways of running a model, each rebuilt small: what cannot be told is an error that names the pack."""

import gc
import weakref
from unittest import mock

import comfy.model_management
import comfy.sample
import comfy.samplers
import pytest
import torch

from benchmarks import compatibility, random_models, small_networks
from benchmarks.in_process import pack_module
from benchmarks.one_step import predict
from benchmarks.tolerance import agree, assert_agree


def erg(node, model, **inputs):
    return node("EntropyGuidanceERG", model=model, **{"temperature": 0.01, "layers": "all", **inputs})[0]


def latent_of(model, size=16, batch=1):
    return random_models.latent(model, size, batch)


def in_tiles(tiles_at_once: int):
    """As Tiled Diffusion runs a network: quarters of the picture, some at once, each with all its conditions."""

    def run(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]
        half = x.shape[-1] // 2
        corners = [(slice(i, i + half), slice(j, j + half)) for i in (0, half) for j in (0, half)]
        out = torch.zeros_like(x)
        for first in range(0, 4, tiles_at_once):
            some = corners[first : first + tiles_at_once]
            repeated = {k: v.repeat(len(some), *[1] * (v.ndim - 1)) if torch.is_tensor(v) else v for k, v in c.items()}
            tiles = torch.cat([x[..., rows, columns] for rows, columns in some])
            found = apply_model(tiles, t.repeat(len(some)), **repeated)
            for (rows, columns), tile in zip(some, found.chunk(len(some))):
                out[..., rows, columns] = tile
        return out

    return run


def test_tiles_one_after_the_other(node):
    model, conditions = random_models.build("SD15"), random_models.conditions()
    tiled = model.clone()
    tiled.set_model_unet_function_wrapper(in_tiles(1))
    latent = latent_of(model, batch=2)
    plain, rectified = (predict(m, conditions, latent) for m in (tiled, erg(node, tiled)))
    assert torch.equal(plain[0], rectified[0]) and not torch.equal(plain[1], rectified[1])


def test_tiles_that_are_stacked_are_an_error_that_names_the_node(node):
    tiled = random_models.build("SD15")
    tiled.set_model_unet_function_wrapper(in_tiles(4))
    with pytest.raises(RuntimeError, match="set its tile batch size to 1, or take it out: .*test_neighbours"):
        predict(erg(node, tiled), random_models.conditions(), latent_of(tiled))


def couple(model, regions: int):
    """As Attention Couple: cross-attention of the positive prompt runs once for each region."""
    model = model.clone()

    def widen(q, k, v, extra):
        parts = q.chunk(len(extra["cond_or_uncond"])), k.chunk(len(extra["cond_or_uncond"]))
        times = [regions if number == 0 else 1 for number in extra["cond_or_uncond"]]
        q, k = (torch.cat([p.repeat(n, 1, 1) for p, n in zip(of, times)]) for of in parts)
        return q, k, k

    def narrow(n, extra):
        numbers, out, first = extra["cond_or_uncond"], [], 0
        each = n.shape[0] // sum(regions if number == 0 else 1 for number in numbers)
        for number in numbers:
            count = each * (regions if number == 0 else 1)
            out.append(n[first : first + count].unflatten(0, (-1, each)).mean(0))
            first += count
        return torch.cat(out)

    model.set_model_attn2_patch(widen)
    model.set_model_attn2_output_patch(narrow)
    return model


@pytest.mark.parametrize(("regions", "batch"), [(3, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("size", [16, 24])
def test_rows_that_another_node_adds_are_an_error_that_names_it(node, regions, batch, size):
    """Also at another size than the one at which the layers were learnt."""
    model, conditions = random_models.build("SD15"), random_models.conditions()
    predict(erg(node, model), conditions, latent_of(model))
    coupled, latent = couple(model, regions), latent_of(model, size, batch)
    with pytest.raises(RuntimeError, match="rows of its own, .* cannot be told: .*test_neighbours"):
        predict(erg(node, coupled), conditions, latent)
    plain, rectified = (predict(m, conditions, latent) for m in (coupled, erg(node, coupled, attention="self")))
    assert torch.equal(plain[0], rectified[0]) and not torch.equal(plain[1], rectified[1])


@pytest.mark.parametrize("size", [32, 64])
def test_tiles_of_attention_go_on_working(node, size):
    """HyperTile folds the picture of self-attention into rows, one picture after the other."""
    model, conditions = random_models.build("SD15"), random_models.conditions()
    tiled = node("HyperTile", model=model, tile_size=32, swap_size=1, max_depth=0, scale_depth=False)[0]
    latent = latent_of(model, size)
    plain, rectified = (predict(m, conditions, latent) for m in (tiled, erg(node, tiled)))
    assert torch.equal(plain[0], rectified[0])
    assert not torch.equal(rectified[1], plain[1]) and not torch.equal(plain[1], predict(model, conditions, latent)[1])


@pytest.mark.parametrize("batch", [1, 2])
def test_cross_attention_that_another_node_cuts_in_two(node, batch):
    """As KJNodes' WanVideoNAG, an object patch: the positive rows attend apart from the negative ones."""
    small, model = small_networks.NETWORKS["WAN21_T2V"], small_networks.build("WAN21_T2V")
    name = "diffusion_model.blocks.1.cross_attn.forward"
    forward = model.get_model_object(name)

    def halves(x, context, *args, **kwargs):
        return torch.cat([forward(a, b, *args, **kwargs) for a, b in zip(x.chunk(2), context.chunk(2))])

    model.add_object_patch(name, halves)
    with pytest.raises(RuntimeError, match="rows of its own, .* cannot be told: .*test_neighbours"):
        predict(erg(node, model), small.conditions(), small.latent(batch))


def test_a_patch_over_ours_is_another_nodes(node):
    """It may tell rows apart where ERG would let a block run once for two."""
    model, conditions = random_models.build("PixArtSigma"), random_models.conditions()
    latent, name = latent_of(model), "diffusion_model.blocks.0.attn.forward"

    def drawn(patched, **inputs):
        model = erg(node, patched, layers="1", **inputs)
        if patched is other:
            original = model.get_model_object(name)
            model.add_object_patch(name, lambda *args, **kwargs: only_first(original(*args, **kwargs)))
        return predict(model, (conditions[0], conditions[0]), latent)

    def only_first(out):
        return torch.cat([out[:1], out[1:] * 0.5])

    other = model.clone()
    for _ in range(2):  # the first finds out that blocks can be shared
        drawn(model)
    for shared, alone in zip(drawn(other), drawn(other, share_trunk=False)):
        assert_agree(shared, alone)


class FirstBlockCache(torch.nn.Module):
    """As WaveSpeed's: a list of one module in the place of the blocks, which runs the blocks itself."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks = blocks

    def forward(self, context, x, *args, **kwargs):
        for block in self.blocks:
            context, x = block(context, x, *args, **kwargs)
        return context, x


def test_a_network_that_was_patched_once_is_learnt_as_it_is(node):
    model, conditions = random_models.build("SD3"), random_models.conditions()
    network, latent = model.model.diffusion_model, latent_of(random_models.build("SD3"))
    expected = predict(erg(node, random_models.build("SD3"), layers="3"), conditions, latent)
    cached = model.clone()

    def with_cache(apply_model, args):
        with mock.patch.object(network, "joint_blocks", torch.nn.ModuleList([FirstBlockCache(network.joint_blocks)])):
            return apply_model(args["input"], args["timestep"], **args["c"])

    cached.set_model_unet_function_wrapper(with_cache)
    predict(erg(node, cached), conditions, latent)
    with pytest.raises(ValueError, match="this model has 1 layer"):
        predict(erg(node, cached, layers="3"), conditions, latent)
    assert all(map(torch.equal, predict(erg(node, model, layers="3"), conditions, latent), expected))


def test_a_shorter_list_of_blocks_stays_with_its_clone(node):
    model, conditions = random_models.build("SD3"), random_models.conditions()
    latent = latent_of(model)
    short = model.clone()
    short.add_object_patch("diffusion_model.joint_blocks", model.model.diffusion_model.joint_blocks[2:])
    predict(erg(node, short), conditions, latent)
    with pytest.raises(ValueError, match="this model has 2 layers"):
        predict(erg(node, short, layers="3"), conditions, latent)
    whole = predict(erg(node, model), conditions, latent)
    expected = predict(erg(node, random_models.build("SD3")), conditions, latent)
    assert all(map(torch.equal, whole, expected))


def test_passes_of_other_calls_are_learnt_once_each(node):
    """As LTX-2 in context windows, with a guide in some of them: evaluations of two kinds, one after the other."""
    model, conditions = random_models.build("SD3"), random_models.conditions()
    network, passes = model.model.diffusion_model, []
    count = network.register_forward_pre_hook(lambda *_: passes.append(1))
    forward = network.joint_blocks[1].forward

    def more_for_small_pictures(context, x, *args, **kwargs):
        if x.shape[1] < 100:
            context, x = forward(context, x, *args, **kwargs)
        return forward(context, x, *args, **kwargs)

    model.add_object_patch("diffusion_model.joint_blocks.1.forward", more_for_small_pictures)
    guided = erg(node, model, layers="3")
    for size in (16, 32) * 3:
        predict(guided, conditions, latent_of(model, size))
    count.remove()
    assert len(passes) == 6 + 1 + 2  # each size's census, and the evaluation that showed that one was missing


class SpatioTemporalGuider(comfy.samplers.CFGGuider):
    """As Lightricks' guider: each condition is evaluated alone, and so has number 0."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        positive, negative = (
            comfy.samplers.calc_cond_batch(self.inner_model, [self.conds[name]], x, timestep, model_options)[0]
            for name in ("positive", "negative")
        )
        return negative + 3.0 * (positive - negative)


def draw(guider, steps=2):
    latent, sigmas = torch.zeros(1, 4, 16, 16), torch.linspace(1, 0, steps + 1)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, latent, sampler, sigmas, seed=0)


def test_conditions_that_are_evaluated_alone(node, demo, prompts, caplog):
    def drawn(model):
        guider = SpatioTemporalGuider(model)
        guider.set_conds(*prompts)
        return draw(guider)

    def cfg(model):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(*prompts)
        guider.set_cfg(3.0)
        return draw(guider)

    assert_agree(drawn(erg(node, demo[0])), cfg(erg(node, demo[0])))
    assert not torch.equal(drawn(erg(node, demo[0])), drawn(demo[0])) and "no effect" not in caplog.text


def dual_model(node, main, other, prompts, cfg=3.0):
    inputs = {"model": main, "model_negative": other, "positive": prompts[0], "negative": prompts[1], "cfg": cfg}
    return node("DualModelGuider", **inputs)[0]


def test_the_negative_model_of_a_guider_of_two(node, demo, prompts, caplog):
    """It runs with the main model's options, so that ERG has to be there."""
    plain = draw(dual_model(node, demo[0], demo[0].clone(), prompts))
    rectified = draw(dual_model(node, erg(node, demo[0]), demo[0].clone(), prompts))
    assert not torch.equal(plain, rectified) and "no effect" not in caplog.text
    assert torch.equal(plain, draw(dual_model(node, demo[0], erg(node, demo[0]), prompts)))
    assert caplog.text.count("had no effect") == 1 and "Put ERG on the guider's main model" in caplog.text


@pytest.mark.parametrize(("name", "kind"), [("SD15", "self"), ("SD15", "cross"), ("PixArtSigma", "all")])
def test_attention_of_the_negative_model_is_reached_by_patches_of_its_own(node, name, kind):
    small, (main, negative) = small_networks.NETWORKS[name], (small_networks.build(name) for _ in range(2))

    def drawn(main, negative):
        guider, latent = dual_model(node, main, negative, small.conditions()), small.latent()
        noise, sigmas = (
            torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)),
            torch.tensor([10.0, 3, 0]),
        )
        return guider.sample(noise, 0 * latent, comfy.samplers.sampler_object("euler"), sigmas, seed=0)

    plain, patches = drawn(main, negative), dict(negative.object_patches)
    rectified = drawn(erg(node, main, attention=kind), negative)
    assert_agree(rectified, drawn(erg(node, main, attention=kind), main.clone()))  # whose weights are the same
    assert not torch.equal(plain, rectified)
    assert torch.equal(plain, drawn(main, negative)) and negative.object_patches == patches


def test_a_region_in_the_first_condition_of_a_guider_of_three(node, demo, prompts, encode):
    """ComfyUI gives the other conditions a copy of the regional entry, with its uuid."""
    region = node("ConditioningSetArea", conditioning=prompts[0], width=64, height=64, x=0, y=0, strength=1.0)[0]
    whole = node("ConditioningCombine", conditioning_1=region, conditioning_2=prompts[0])[0]

    def drawn(model):
        guider = node(
            "DualCFGGuider", model=model, cond1=whole, cond2=encode(demo[1], "a green triangle"), negative=prompts[1],
            cfg_conds=3.0, cfg_cond2_negative=2.0, style="regular",
        )[0]  # fmt: skip
        weak = []

        def spy(executor, *args, **kwargs):
            override = args[5].get("optimized_attention_override")
            weak.append(0 if override is None else sum(override.chunks))
            return executor(*args, **kwargs)

        guider.model_patcher.add_wrapper_with_key("apply_model", "spy", spy)
        return draw(guider, steps=1), weak

    (plain, none), (rectified, weak) = drawn(demo[0].clone()), drawn(erg(node, demo[0]))
    assert not torch.equal(plain, rectified)
    assert sum(weak) == 2 and sum(none) == 0  # the negative condition, and its copy for the region


def test_a_guider_with_an_empty_condition(node, demo, prompts):
    guider = node(
        "DualCFGGuider", model=erg(node, demo[0]), cond1=prompts[0], cond2=[], negative=prompts[1], cfg_conds=3.0,
        cfg_cond2_negative=2.0, style="regular",
    )[0]  # fmt: skip
    assert draw(guider).isfinite().all()


def kinds_that_changed(node, model, kind: str, conditions, latent) -> set[str]:
    """The modules whose attention ERG changes with a temperature near 1."""
    negative = (None, conditions[1])
    plain = compatibility.attentions(model, negative, latent)
    tempered = erg(node, model, temperature=1.01, attention=kind)
    predict(tempered, negative, latent)
    changed = compatibility.attentions(tempered, negative, latent)
    assert [name for name, _ in plain] == [name for name, _ in changed]
    pairs = [(name, ((a * b).sum() / a.square().sum()).item()) for (name, a), (_, b) in zip(plain, changed)]
    return {name for name, ratio in pairs if ratio > 1.005}


def test_kinds_where_self_attention_reads_the_prompt(node):
    """SD x4 upscaler's first attention does."""
    small, model = small_networks.NETWORKS["SD_X4Upscaler"], small_networks.build("SD_X4Upscaler")
    blocks = {n: m for n, m in model.model.diffusion_model.named_modules() if hasattr(m, "disable_self_attn")}
    reading = {f"{name}.attn1" for name, block in blocks.items() if block.disable_self_attn}
    picture = {f"{name}.attn1" for name in blocks} - reading
    prompt = {f"{name}.attn2" for name in blocks} | reading
    assert reading and picture
    for kind, expected in (("self", picture), ("cross", prompt)):
        assert kinds_that_changed(node, model, kind, small.conditions(), small.latent()) == expected


@pytest.mark.parametrize("longer", [0, 1])
def test_kinds_where_the_prompt_is_as_long_as_the_video(node, longer):
    """LTX's modules tell, whatever the lengths."""
    small, model = small_networks.NETWORKS["LTXV"], small_networks.build("LTXV")
    latent = small.latent(1)
    tokens, generator = latent[0, 0].numel() + longer, torch.Generator().manual_seed(1)
    conditions = [
        [
            [
                torch.randn(1, tokens, text.shape[-1], generator=generator),
                {**more, "attention_mask": torch.ones(1, tokens, dtype=torch.long)},
            ]
        ]
        for ((text, more),) in small.conditions()
    ]
    modules = {name for name, _ in model.model.diffusion_model.named_modules()}
    for kind, ending in (("self", ".attn1"), ("cross", ".attn2")):
        expected = {name for name in modules if name.endswith(ending)}
        assert kinds_that_changed(node, model, kind, conditions, latent) == expected


@pytest.mark.parametrize("name", ["HiDreamO1", "Stable_Cascade_C", "Flux"])
def test_joint_attention_is_self_attention_whatever_its_lengths(node, name):
    small, model = small_networks.NETWORKS[name], small_networks.build(name)
    negative, latent = (None, small.conditions()[1]), small.latent(1)
    plain, everything, self_attention = (
        predict(one, negative, latent)[1] for one in (model, erg(node, model), erg(node, model, attention="self"))
    )
    assert_agree(self_attention, everything)
    assert not agree(everything, plain)
    with pytest.raises(RuntimeError, match="have no cross-attention"):
        predict(erg(node, model, attention="cross"), negative, latent)


def test_joint_attention_that_keeps_keys_of_reference_pictures(node):
    """Beside Flux KV Cache keys are longer than queries from the second step on."""
    small, klein = small_networks.NETWORKS["Flux2"], small_networks.build("Flux2", guidance_embed=False)
    (model,) = node("FluxKVCache", model=klein)
    latent = small.latent(1)
    reference = torch.randn(latent.shape, generator=torch.Generator().manual_seed(7))
    conditions = [[[text, {**more, "reference_latents": [reference]}]] for ((text, more),) in small.conditions()]

    def drawn(model):
        return comfy.sample.sample(model, latent, 3, 3.0, "euler", "simple", *conditions, 0 * latent, seed=3)

    with torch.inference_mode():
        plain, everything, self_attention = map(drawn, (model, erg(node, model), erg(node, model, attention="self")))
    assert_agree(self_attention, everything)
    assert not agree(everything, plain)


@pytest.mark.parametrize(("window", "said"), [({}, 0), ({"start_percent": 0.4}, 1)])
def test_a_cache_of_reference_pictures_outlasts_a_window(node, demo, prompts, sample, caplog, window, said):
    (model,) = node("FluxKVCache", model=demo[0])
    sample(erg(node, model, **window), *prompts, steps=2)
    assert caplog.text.count("Flux KV Cache keeps what the first step has read") == said


def test_kinds_beside_attention_that_another_node_replaces(node):
    """As IP-Adapter: the prompt's attention and further calls of attention in the place of one."""
    model = random_models.build("SD15")
    attention = comfy.ldm.modules.attention.optimized_attention

    def replaced(q, k, v, extra):
        options = {name: extra[name] for name in extra if name not in ("n_heads", "dim_head", "attn_precision")}
        found = [attention(q, k, v, extra["n_heads"], transformer_options=options) for _ in range(2)]
        return sum(found) / 2

    for number in (1, 2):
        model.set_model_attn2_replace(replaced, "attn2", "input", number)
    found = kinds_that_changed(node, model, "self", random_models.conditions(), latent_of(model))
    assert found == {name for name, _ in model.model.diffusion_model.named_modules() if name.endswith("attn1")}


class Engine:
    """A network that is no torch module, as TensorRT's."""


def test_a_compiled_engine_is_an_error(node, demo):
    model = demo[0].clone()
    model.model = mock.Mock(spec=model.model, diffusion_model=Engine())
    with pytest.raises(ValueError, match="Engine is a compiled engine whose attention cannot be reached"):
        erg(node, model)


def test_a_sampling_within_a_sampling(node, demo, prompts, sample, caplog):
    """At cfg 1 and with the same model, as detail nodes do: the outer one is not said to have had no effect."""
    model, inner = erg(node, demo[0]), []

    def with_details(executor, *args, **kwargs):
        drawn = executor(*args, **kwargs)
        if not inner:
            inner.append(None)
            inner.append(sample(model, *prompts, cfg=1.0, steps=1))
        return drawn

    outer = model.clone()
    outer.add_wrapper_with_key("outer_sample", "details", with_details)
    assert not torch.equal(sample(outer, *prompts), sample(demo[0], *prompts))
    assert len(inner) == 2 and "no effect" not in caplog.text


def test_nothing_is_kept_for_each_sampling(node, demo, prompts, sample):
    model = erg(node, demo[0], start_percent=0.1)
    kept = []
    for _ in range(3):
        shifted = node("ModelSamplingFlux", model=model, max_shift=1.15, base_shift=0.5, width=128, height=128)[0]
        sample(shifted, *prompts)
        (branch,) = model.get_wrappers("apply_model", "entropy_guidance_erg")
        kept.append(len(branch.evaluation._made))
    assert kept[0] == kept[2]


def test_chunks_that_another_node_splits_without_their_uuids(node, demo, prompts):
    model, whole = demo[0].clone(), predict(erg(node, demo[0]), prompts)

    def one_by_one(executor, x, t, c_concat, c_crossattn, control, transformer_options, **conditions):
        found = []
        for i, number in enumerate(transformer_options["cond_or_uncond"]):
            rows = slice(2 * i, 2 * i + 2)
            extra = {k: v[rows] if torch.is_tensor(v) and len(v) == len(x) else v for k, v in conditions.items()}
            options = {**transformer_options, "cond_or_uncond": [number]}
            found.append(executor(x[rows], t[rows], c_concat, c_crossattn[rows], control, options, **extra))
        return torch.cat(found)

    model.add_wrapper_with_key("apply_model", "test", one_by_one)
    for a, b in zip(whole, predict(erg(node, model), prompts), strict=True):
        assert_agree(a, b)


class AsAKSamplerNumbers(comfy.samplers.CFGGuider):
    """A guider that evaluates its conditions without ComfyUI's calc_cond_batch, and numbers them itself."""

    numbers = (1, 0)

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        texts = [self.conds[name][0]["model_conds"]["c_crossattn"].cond for name in ("negative", "positive")]
        options = {**model_options["transformer_options"], "cond_or_uncond": list(self.numbers)}
        both, inputs = torch.cat(texts), {"transformer_options": options}
        negative, positive = self.inner_model.apply_model(
            x.repeat(2, 1, 1, 1), timestep.repeat(2), c_crossattn=both, **inputs
        ).chunk(2)
        return negative + self.cfg * (positive - negative)


def test_conditions_that_a_guider_numbers_itself(node, demo, encode):
    """The one numbered 1 is the weak one; more than two cannot be told apart."""
    prompts = encode(demo[1], "a red circle"), encode(demo[1], "a blue square")

    def drawn(kind, model):
        guider = kind(model)
        guider.set_conds(*prompts)
        guider.set_cfg(3.0)
        return draw(guider)

    own, expected = (drawn(kind, erg(node, demo[0])) for kind in (AsAKSamplerNumbers, comfy.samplers.CFGGuider))
    assert_agree(own, expected)
    assert not agree(own, drawn(AsAKSamplerNumbers, demo[0]))
    AsManyNumbers = type("AsManyNumbers", (AsAKSamplerNumbers,), {"numbers": (2, 0)})
    with pytest.raises(RuntimeError, match=r"conditions that are numbered \[2, 0\] by another node"):
        drawn(AsManyNumbers, erg(node, demo[0]))


def test_maps_are_forgotten_with_their_networks(node):
    known = pack_module("nodes.attention.layers")._known
    model = random_models.build("SD3")
    predict(erg(node, model), random_models.conditions(), latent_of(model))
    assert model.model.diffusion_model in known
    network = weakref.ref(model.model.diffusion_model)
    comfy.model_management.unload_all_models()
    del model
    gc.collect()
    assert network() is None
