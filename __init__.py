"""ComfyUI Entropy Guidance: Entropy Rectifying Guidance (ERG) and classifier guidance as nodes."""

from comfy_api.latest import ComfyExtension, io

from .contract.loading import nodes_that_work

WEB_DIRECTORY = "./web"
# Each node's class and its file in nodes/, in the order of the menu. A file is imported by its name, so that a node that
# this ComfyUI cannot have takes no other with it.
NODES = {
    "EntropyGuidanceERG": "erg",
    "EntropyGuidanceCLIP": "erg_clip",
    "EntropyGuidanceCADS": "cads",
    "EntropyGuidanceGuider": "guider",
    "EntropyGuidanceLoadClassifier": "load_classifier",
    "EntropyGuidanceScore": "score",
    "EntropyGuidanceApply": "apply",
    "EntropyGuidanceDDPMSampler": "ddpm_sampler",
    "EntropyGuidanceCalibrate": "calibrate",
    "EntropyGuidanceCalibrationReport": "calibration_report",
    "EntropyGuidanceSaveClassifier": "save_classifier",
    "EntropyGuidanceRecord": "record",
    "EntropyGuidancePlot": "plot",
    "EntropyGuidanceLoadDemo": "load_demo",
    "EntropyGuidanceLoadADM": "load_adm",
    "EntropyGuidanceLoadDiT": "load_dit",
    "EntropyGuidanceClassCondition": "class_condition",
}


class EntropyGuidance(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return nodes_that_work(NODES, __package__)


async def comfy_entrypoint() -> EntropyGuidance:
    return EntropyGuidance()
