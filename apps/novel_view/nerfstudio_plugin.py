"""What nerfstudio finds through its entry points: `depth-video-nerfacto` and its data parser `depth-video-data`.

nerfstudio loads entry points unguarded: a module that fails here would break every `ns-*` command. So whatever goes
wrong, importing this file succeeds; then both names are None, which nerfstudio reports and passes over.
"""

from __future__ import annotations

import logging
from typing import Any

method: Any = None
dataparser: Any = None

try:
    from nerfstudio.plugins.registry_dataparser import DataParserSpecification
    from nerfstudio.plugins.types import MethodSpecification

    from novel_view.nerf_model import DESCRIPTION, DepthVideoDataParserConfig, method_config

    method = MethodSpecification(config=method_config(), description=DESCRIPTION)
    dataparser = DataParserSpecification(
        config=DepthVideoDataParserConfig(),
        description="Data sets of `novel-view export`, which state their depth unit.",
    )
except Exception as error:  # any fault of any version must stay here
    method = dataparser = None
    logging.getLogger(__name__).debug("depth-engine's nerfstudio plugin is not available: %s", error)
