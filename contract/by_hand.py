"""The part of the contract that the code does not say itself. `python -m tools.contract` finds out which files use it.

An entry of MEMBERS and KEYS is spelled as in the pack's code: a bare name, or behind the name of what it is taken from
where the bare one would say too little ("model.clone", "args.sigma").
"""

# For each class of ComfyUI what the pack uses of its instances, which no import names.
MEMBERS = {
    "comfy.model_patcher.ModelPatcher": (
        "model.clone", "model.model", "add_callback_with_key", "add_object_patch", "add_wrapper_with_key", "attachments",
        "get_attachment", "get_free_memory", "get_model_object", "get_wrappers", "is_dynamic", "load_device",
        "model_patcher.memory_required", "patcher.memory_required", "object_patches", "set_attachments",
        "set_model_sampler_post_cfg_function",
    ),
    "comfy.model_base.BaseModel": (
        "diffusion_model", "load_model_weights", "model.memory_required", "model_sampling", "process_latent_in",
    ),
    "comfy.model_sampling.ModelSamplingDiscrete": ("percent_to_sigma", "sigma_max"),
    "comfy.model_sampling.EPS": ("noise_scaling",),
    "comfy.model_sampling.CONST": ("noise_scaling",),
    "comfy.latent_formats.LatentFormat": (
        "latent.latent_channels", "latent_dimensions", "latent_rgb_factors", "latent_rgb_factors_bias",
        "latent_rgb_factors_reshape", "latent_format.process_in", "process_out", "spacial_downscale_ratio",
        "taesd_decoder_name",
    ),
    "comfy.supported_models_base.BASE": (
        "config.get_model", "config.set_inference_dtype", "config.supported_inference_dtypes",
    ),
    "comfy.patcher_extension.WrapperExecutor": (
        "executor.class_obj", "executor.idx", "executor.original", "executor.wrappers",
    ),
    "comfy.ldm.modules.attention.BasicTransformerBlock": ("disable_self_attn", "switch_temporal_ca_to_sa"),
    "comfy.context_windows.IndexListContextWindow": ("window.dim", "window.get_tensor", "window.total_frames"),
    "comfy.samplers.CFGGuider": (
        "guider.cfg", "guider.conds", "guider.inner_model", "guider.loaded_models", "guider.model_options",
        "guider.model_patcher",
    ),
    "comfy.conds.CONDRegular": ("_copy_with", "condition.cond"),
    "comfy.sd.CLIP": ("clip.clone", "clip.cond_stage_model", "clip.patcher", "load_sd"),
    "comfy.sd.VAE": (
        "vae.encode", "vae.latent_channels", "vae.patcher", "first_stage_model", "latent_dim", "memory_used_decode",
        "process_output", "throw_exception_if_invalid", "vae_dtype",
    ),
    "comfy.sd1_clip.SDClipModel": ("encoder.transformer",),
    "comfy.utils.ProgressBar": ("update_absolute",),
    "comfy_api.latest.io.ComfyNode": ("node.hidden",),
    "comfy_execution.graph.DynamicPrompt": ("get_display_node_id",),
}  # fmt: skip

# For each key of the dicts that ComfyUI hands around, and each name that the pack knows as a string, the module that
# writes or reads it.
KEYS = {
    # transformer options
    "cond_or_uncond": "comfy.samplers",
    "uuids": "comfy.samplers",
    "sigmas": "comfy.samplers",
    "sample_sigmas": "comfy.samplers",
    "denoise_mask_function": "comfy.samplers",
    "registered_hooks": "comfy.sampler_helpers",
    "optimized_attention_override": "comfy.ldm.modules.attention",
    "block": "comfy.ldm.modules.attention",
    "block_type": "comfy.ldm.flux.model",
    "block_index": "comfy.ldm.modules.attention",
    "transformer_index": "comfy.ldm.modules.diffusionmodules.openaimodel",
    "patches": "comfy.model_patcher",
    "patches_replace": "comfy.model_patcher",
    "wrappers": "comfy.patcher_extension",
    "callbacks": "comfy.patcher_extension",
    # model options
    "transformer_options": "comfy.samplers",
    "context_handler": "comfy.samplers",
    "disable_cfg1_optimization": "comfy.samplers",
    "model_function_wrapper": "comfy.samplers",
    "sampler_calc_cond_batch_function": "comfy.samplers",
    "sampler_pre_cfg_function": "comfy.samplers",
    "sampler_post_cfg_function": "comfy.samplers",
    # conditions
    "uuid": "comfy.sampler_helpers",
    "model_conds": "comfy.samplers",
    "prompt_type": "comfy.samplers",
    "c_crossattn": "comfy.model_base",
    "cross_attn": "comfy.model_base",
    "pooled_output": "comfy.model_base",
    "clip_text_pooled": "comfy.model_base",
    "encoder_hidden_states_t5": "comfy.model_base",
    "conditioning_mt5xl": "comfy.model_base",
    "encoder_hidden_states_llama3": "comfy.model_base",
    "conditioning_llama3": "comfy.model_base",
    "txt_byt5": "comfy.model_base",
    "conditioning_byt5small": "comfy.model_base",
    # what a post CFG function gets
    "args.denoised": "comfy.samplers",
    "args.uncond_denoised": "comfy.samplers",
    # arguments of attention
    "skip_reshape": "comfy.ldm.modules.attention",
    "skip_output_reshape": "comfy.ldm.modules.attention",
    # how attention is handed through text encoders
    "optimized_attention": "comfy.clip_model",
    "context_window": "comfy.context_windows",
    # what TorchCompileModel's wrapper holds
    "compiled_module_dict": "comfy_api.torch_helpers.torch_compile",
}
# Keys that the pack asks for and does without: not every release that it works with has them.
ASKED_FOR = {"multigpu_clones", "multigpu_thread_device", "qwen_image21_cache", "animate2_cache", "ar_state"}

# What ComfyUI calls by position, and the pack takes or replaces by position: its first parameters, and the symbol or key
# by which the pack takes part.
PARAMETERS = (
    ("comfy.model_base.BaseModel._apply_model", ("x", "t", "c_concat", "c_crossattn", "control", "transformer_options"),
     "comfy.patcher_extension.WrappersMP.APPLY_MODEL"),
    ("comfy.samplers._calc_cond_batch", ("model", "conds", "x_in", "timestep", "model_options"),
     "comfy.patcher_extension.WrappersMP.CALC_COND_BATCH"),
    ("comfy.samplers.CFGGuider.outer_sample",
     ("noise", "latent_image", "sampler", "sigmas", "denoise_mask", "callback", "disable_pbar", "seed"),
     "comfy.patcher_extension.WrappersMP.OUTER_SAMPLE"),
    ("comfy.sampler_helpers._prepare_sampling", ("model", "noise_shape", "conds", "model_options"),
     "comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING"),
    ("comfy.samplers.CFGGuider.predict_noise", ("x", "timestep", "model_options", "seed"), "comfy.samplers.CFGGuider"),
    ("comfy.context_windows.IndexListContextHandler.execute",
     ("calc_cond_batch", "model", "conds", "x_in", "timestep", "model_options"), "context_handler"),
    ("comfy.k_diffusion.sampling.sample_euler", ("model", "x", "sigmas", "extra_args", "callback", "disable"),
     "comfy.samplers.KSAMPLER"),
    ("comfy.ldm.modules.attention.attention_pytorch", ("q", "k", "v", "heads"), "optimized_attention_override"),
)  # fmt: skip
