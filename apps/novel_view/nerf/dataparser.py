"""The data parser of `depth-video-nerfacto`.

Apart from the method: nerfstudio asks for data parsers while it still imports what the method needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import Nerfstudio, NerfstudioDataParserConfig
from nerfstudio.utils.io import load_from_json


@dataclass
class DepthVideoDataParserConfig(NerfstudioDataParserConfig):
    """A nerfstudio data set that says itself which unit its depth has."""

    _target: type = field(default_factory=lambda: DepthVideoDataParser)


class DepthVideoDataParser(Nerfstudio):
    """Reads `depth_unit_scale_factor` of transforms.json; without it the option of that name counts."""

    config: DepthVideoDataParserConfig

    def _generate_dataparser_outputs(self, split: str = "train") -> DataparserOutputs:
        outputs = super()._generate_dataparser_outputs(split)
        data = self.config.data
        unit = load_from_json(data if data.suffix == ".json" else data / "transforms.json").get(
            "depth_unit_scale_factor"
        )
        if unit is not None:
            if not isinstance(unit, int | float) or not unit > 0:
                raise ValueError(f"depth_unit_scale_factor: {unit!r} in {data} is not accepted; give a number above 0")
            outputs.metadata["depth_unit_scale_factor"] = float(unit)
        return outputs
