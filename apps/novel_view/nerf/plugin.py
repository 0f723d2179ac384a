"""What nerfstudio finds through its entry points: `depth-video-nerfacto` and its data parser `depth-video-data`.

nerfstudio loads entry points unguarded: one that fails here would break every `ns-*` command. So whatever goes wrong,
`method` and `dataparser` can be asked for; then they are None, which nerfstudio reports and passes over. Each is made
when it is asked for: nerfstudio asks for data parsers while parts of it that the method needs are not imported yet.
"""

from __future__ import annotations

import logging
from typing import Any


def __getattr__(name: str) -> Any:
    makers = {"method": _method, "dataparser": _dataparser}
    if name not in makers:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return makers[name]()
    except Exception as error:  # any fault of any version must stay here
        logging.getLogger(__name__).warning("depth-engine's nerfstudio %s is not available: %s", name, error)
        return None


def _method() -> Any:
    from nerfstudio.plugins.types import MethodSpecification

    from novel_view.nerf.model import DESCRIPTION, method_config

    return MethodSpecification(config=method_config(), description=DESCRIPTION)


def _dataparser() -> Any:
    from nerfstudio.plugins.registry_dataparser import DataParserSpecification

    from novel_view.nerf.dataparser import DepthVideoDataParserConfig

    return DataParserSpecification(
        config=DepthVideoDataParserConfig(),
        description="Data sets of `novel-view export`, which state their depth unit.",
    )
