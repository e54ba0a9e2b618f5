"""What the configuration and the pack come to: the settings of every stage, and of the scheduler.

Both must count the same slots and pages: the scheduler's books are what the stages hold.
"""

from __future__ import annotations

from trireme_coordinator.config import ServeConfig
from trireme_coordinator.placement import Placed
from trireme_coordinator.ray_cluster import Settings
from trireme_coordinator.scheduler import SchedulerConfig
from trireme_coordinator.scheduler.budget import pages_for
from trireme_worker.actor import StageSettings, chosen_layout
from trireme_worker.pack import Pack, is_url
from trireme_worker.page_redis import StoreSettings


def kv_tokens(config: ServeConfig, pack: Pack) -> int:
    """Tokens whose keys and values each stage has room for."""
    return config.kv_tokens or max(8 * pack.config.context, 16384)


def layout_of(config: ServeConfig, pack: Pack) -> str:
    """The layout that weights will have in memory, as far as the coordinator can tell: its CPU may be another."""
    return chosen_layout(config.layout) or pack.layout


def settings_of(config: ServeConfig, pack: Pack, pages: StoreSettings | None) -> Settings:
    """What a worker is told of its stage, and of the node that it runs on."""

    def settings(stage: Placed, host: str) -> StageSettings:
        return StageSettings(
            pack=config.pack if is_url(config.pack) else str(pack.path),
            pack_sha256=pack.sha256,
            first_layer=stage.layers.start,
            end_layer=stage.layers.stop,
            threads=config.threads,
            kv_tokens=kv_tokens(config, pack),
            kv_dtype=config.kv_dtype,
            layout=config.layout,
            slots=config.slots,
            host=host,
            node_id=stage.node.node_id,
            pages=pages,
        )

    return settings


def scheduling(config: ServeConfig, pack: Pack) -> SchedulerConfig:
    """Of the scheduler over stages with these settings."""
    tokens = kv_tokens(config, pack)
    return SchedulerConfig(
        stages=config.stages,
        slots=config.slots,
        pages=pages_for(tokens),
        context=min(pack.config.context, tokens),
        prefill_chunk=config.prefill_chunk,
        queue=config.queue,
        speculation=config.speculation != "off",
        ahead=True,
    )
