"""Wan 2.1, Wan 2.2 and their kin."""

import comfy.clip_vision
import torch
from comfy.patcher_extension import WrappersMP

from .network import WIDTH, SmallNetwork, noise, text

FRAMES = 3  # of a latent


def latent_of(side: int = 4, channels: int = 16) -> tuple[tuple[int, ...], ...]:
    return ((channels, FRAMES, side, side),)


def picture(channels: int = 16, frames: int = FRAMES, side: int = 4):
    """An option of `text` that is a latent."""
    return noise(1, channels, frames, side, side)


def for_small_faces(model) -> None:
    """Its encoder of faces takes 512 pixels at any size of the network: without the last three halvings it takes 64."""
    del model.model.diffusion_model.motion_encoder.enc.net_app.convs[5:8]


def scaled(scale: float, make):
    """An option of `text` for a network whose random weights let too much or too little of it through."""
    return lambda generator: make(generator) * scale


def several(*makers):
    """An option of `text` that is a list."""
    return lambda generator: [make(generator) for make in makers]


def vision(generator: torch.Generator) -> comfy.clip_vision.Output:
    output = comfy.clip_vision.Output()
    output.penultimate_hidden_states = torch.randn(1, 5, 1280, generator=generator)
    return output


def denoised(*frames: float, side: int = 4) -> torch.Tensor:
    """A mask with a value for each frame: 1 where ComfyUI is to denoise."""
    values = torch.tensor(frames, dtype=torch.float32)
    return values[None, None, :, None, None].expand(1, 1, -1, side, side).clone()


def with_ar_state(model) -> None:
    """Has a model run as in ComfyUI's sampler ar_video: with a state of the frames before, here anew in each evaluation."""

    def evaluate(executor, x, t, c_concat, c_crossattn, control, transformer_options, **conditions):
        network, rows, tokens = model.model.diffusion_model, len(x), FRAMES * 2 * 2
        state = {
            "start_frame": 0,
            "kv_caches": network.init_kv_caches(rows, tokens, x.device, network.dtype),
            "crossattn_caches": network.init_crossattn_caches(rows, x.device, network.dtype),
        }
        options = {**transformer_options, "ar_state": state}
        return executor(x, t, c_concat, c_crossattn, control, options, **conditions)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "ar_state", evaluate)


# To make weights fewer, the text is narrower than the 4096 of all real ones. A projection of CLIP's pictures, where there
# is one, has 1.7 million weights at any size.
T2V = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 32, "out_dim": 16, "num_heads": 2, "ffn_dim": 64,
    "num_layers": 2, "patch_size": (1, 2, 2), "freq_dim": 32, "window_size": (-1, -1), "qk_norm": True,
    "cross_attn_norm": True, "eps": 1e-6, "in_dim": 16, "text_dim": WIDTH,
}  # fmt: skip
I2V = {**T2V, "model_type": "i2v", "in_dim": 36}

CAMERA = scaled(0.05, picture(24, side=32))
START = {"concat_latent_image": picture(), "concat_mask": denoised(0, 1, 1)}

DANCER = {
    **I2V, "model_type": "wandancer", "audio_inject_layers": [0, 1], "music_dim": 16, "music_heads": 2,
    "music_latent_dim": 16,
}  # fmt: skip
DANCER_TEXT = {
    "pooled": None,
    "clip_vision_output": vision,
    "clip_vision_output_ref": vision,
    "audio_embed": noise(1, 30, 35),
    "audio_inject_scale": 0.8,
    "concat_latent_image": picture(side=8),
    "concat_mask": denoised(0, 1, 1, side=8),
}

WAN = {
    "WAN21_T2V": SmallNetwork(T2V, latent_of(), text(pooled=None)),
    # Phantom's subjects and Bernini's.
    "WAN21_T2V:references": SmallNetwork(
        T2V,
        latent_of(),
        text(
            pooled=None,
            time_dim_concat=picture(frames=1),
            context_latents=several(picture(frames=1), picture(frames=2, side=2)),
        ),
    ),
    # The first frame is given, so each frame has a time of its own.
    "WAN22_T2V": SmallNetwork(
        {**T2V, "in_dim": 48, "out_dim": 48},
        latent_of(channels=48),
        text(pooled=None, denoise_mask=denoised(0, 1, 1)),
    ),
    "WAN21_CausalAR_T2V": SmallNetwork({**T2V, "causal_ar": True}, latent_of(), text(pooled=None)),
    "WAN21_CausalAR_T2V:ar_state": SmallNetwork(
        {**T2V, "causal_ar": True}, latent_of(), text(pooled=None), prepare=with_ar_state
    ),
    "WAN21_I2V": SmallNetwork(
        {**I2V, "flf_pos_embed_token_number": 10},
        latent_of(),
        text(pooled=None, clip_vision_output=vision, **START),
    ),
    "WAN21_FunControl2V": SmallNetwork(
        {**I2V, "in_dim": 48, "in_dim_ref_conv": 16},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            concat_latent_image=picture(32),
            reference_latents=several(picture(frames=1)),
        ),
    ),
    "WAN21_Camera": SmallNetwork(
        {**I2V, "model_type": "camera", "in_dim": 32},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            concat_latent_image=picture(),
            camera_conditions=CAMERA,
        ),
    ),
    "WAN22_Camera": SmallNetwork(
        {**T2V, "model_type": "camera_2.2", "in_dim": 36},
        latent_of(),
        text(pooled=None, camera_conditions=CAMERA, **START),
    ),
    "WAN21_Vace": SmallNetwork(
        {**T2V, "model_type": "vace", "num_layers": 4, "vace_in_dim": 96, "vace_layers": 2},
        latent_of(),
        text(
            pooled=None,
            vace_frames=several(picture(32), picture(32)),
            vace_mask=several(picture(64), picture(64)),
            vace_strength=[1.0, 0.5],
        ),
    ),
    "WAN21_FlowRVS": SmallNetwork({**T2V, "model_type": "flow_rvs"}, latent_of(), text(pooled=None)),
    # The projection of the sound has 39 million weights at any size.
    "WAN21_HuMo": SmallNetwork(
        {**T2V, "model_type": "humo", "in_dim": 36},
        latent_of(),
        text(pooled=None, reference_latents=several(picture(frames=1)), audio_embed=noise(1, FRAMES, 8, 5, 1280)),
    ),
    # The latents of what moved before are taken in patches of up to 8 x 8.
    "WAN22_S2V": SmallNetwork(
        {**T2V, "model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0, 1]},
        latent_of(side=8),
        text(
            pooled=None,
            audio_embed=noise(1, 25, 16, 4 * FRAMES),
            reference_latents=several(picture(frames=1, side=8)),
            reference_motion=picture(frames=5, side=8),
            control_video=picture(side=8),
        ),
    ),
    # One layer in five looks at the face.
    "WAN22_Animate": SmallNetwork(
        {**I2V, "model_type": "animate", "num_layers": 10},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            face_video_pixels=scaled(1e12, noise(1, 3, 1, 64, 64)),
            pose_video_latent=picture(frames=2),
            **START,
        ),
        prepare=for_small_faces,
    ),
    # The reference picture is the latent's first frame, which the pose's frames leave out.
    "WAN_Animate2": SmallNetwork(
        {**I2V, "model_type": "animate2"},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            clip_vision_output_pose=vision,
            cross_attn_pose=noise(1, 8, WIDTH),
            pose_video_latent=picture(frames=FRAMES - 1),
            **START,
        ),
        since="0.33",
    ),
    # Outside of the window of its pose.
    "WAN_Animate2:no_pose": SmallNetwork(
        {**I2V, "model_type": "animate2"},
        latent_of(),
        text(pooled=None, clip_vision_output=vision, **START),
        since="0.33",
    ),
    "WAN21_SCAIL": SmallNetwork(
        {**I2V, "model_type": "scail", "in_dim": 20},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            reference_latents=several(picture(frames=1)),
            pose_video_latent=picture(side=2),
        ),
    ),
    "WAN21_SCAIL2": SmallNetwork(
        {**I2V, "model_type": "scail2", "in_dim": 20, "mask_in_dim": 28},
        latent_of(),
        text(
            pooled=None,
            clip_vision_output=vision,
            concat_mask=denoised(0, 1, 1),
            reference_latents=several(picture(frames=1), picture(frames=1)),
            ref_mask_28ch=noise(1, 2 + FRAMES, 28, 4, 4),
            ref_mask_flag=False,
            pose_video_latent=picture(side=2),
            driving_mask_28ch=noise(1, FRAMES, 28, 2, 2),
        ),
    ),
    # A frame's tokens are split among eight steps of the music.
    "WAN22_WanDancer": SmallNetwork(DANCER, latent_of(side=8), text(**DANCER_TEXT)),
    # Other weights at the ends of the network for anything but 30 frames a second.
    "WAN22_WanDancer:key_frames": SmallNetwork(DANCER, latent_of(side=8), text(fps=7.5, **DANCER_TEXT)),
}
