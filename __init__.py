"""ComfyUI Entropy Guidance: Entropy Rectifying Guidance (ERG) as nodes."""

from comfy_api.latest import ComfyExtension, io

WEB_DIRECTORY = "./web"


class EntropyGuidance(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        from .nodes.erg import EntropyGuidanceERG
        from .nodes.erg_clip import EntropyGuidanceCLIP
        from .nodes.load_demo import EntropyGuidanceLoadDemo

        # The nodes of classifier guidance join once their strengths are measured and an example shows them.
        return [EntropyGuidanceERG, EntropyGuidanceCLIP, EntropyGuidanceLoadDemo]


async def comfy_entrypoint() -> EntropyGuidance:
    return EntropyGuidance()
