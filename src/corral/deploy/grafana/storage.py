"""The dashboard of downloads and disks. Pure data."""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board
from corral.deploy.grafana.panels import BLUE, GREEN, RED, YELLOW, Query, lines, row, stat

_W: Final = 'instance=~"$instance"'

STORAGE: Final = Board(
    "corral-storage",
    "Corral: downloads and disks",
    "What is being fetched and how fast, what the store takes, and how long the disk lasts.",
    (INSTANCE,),
    (
        stat("Downloads that run", "Not those that are paused or wait for their turn.", "none",
             f'sum(corral_downloads{{{_W}, state="running"}}) or vector(0)',
             limits=((1, BLUE),)),
        stat("Speed", "Of all running downloads together.", "Bps", f"sum(corral_download_bytes_per_second{{{_W}}})",
             limits=((0, BLUE),)),
        stat("Nothing has come for", "Of the most stuck one. Long: the registry, or the way to it.", "s",
             f"max(corral_download_stalled_seconds{{{_W}}})", limits=((30, YELLOW), (120, RED))),
        stat("Models take", "On disk, whatever they share counted once.", "bytes", f"sum(corral_store_bytes{{{_W}}})",
             limits=((0, BLUE),)),
        stat("Least free", "On any disk. Downloads stop when nothing is.", "percentunit",
             f"min(place:corral_disk_free:ratio{{{_W}}})", limits=((0, RED), (0.1, YELLOW), (0.2, GREEN))),
        stat("Full in a day?", "What will be free in 24 hours, if the last hour goes on. Below 0: it will be full.",
             "bytes", f"min(predict_linear(corral_disk_free_bytes{{{_W}}}[1h], 86400))",
             limits=((0, YELLOW), (10 << 30, GREEN))),
        row("Downloads"),
        lines("By state", "Paused and failed ones wait for somebody: `corral downloads`.", "none",
              Query(f"sum by (state) (corral_downloads{{{_W}}})", "{{state}}"), stack=True),
        lines("Speed of downloads", "Far under what the line has: a slow registry, or a bound (`download.limit`).",
              "Bps",
              Query(f"sum(corral_download_bytes_per_second{{{_W}}})", "all downloads"),
              Query(f"sum(rate(corral_download_bytes_total{{{_W}}}[$__rate_interval]))", "mean of what came")),
        lines("Seconds without a byte", "Of the most stuck download that runs. CorralDownloadStuck looks at this.", "s",
              Query(f"max by (instance) (corral_download_stalled_seconds{{{_W}}})", "{{instance}}")),
        row("Disks"),
        lines("Free", "Of the disk of the store and that of the state (logs, keys, events).", "bytes",
              Query(f"min by (place) (corral_disk_free_bytes{{{_W}}})", "{{place}} free"),
              Query(f"max by (place) (corral_disk_total_bytes{{{_W}}})", "{{place}} in all")),
        lines("Share free", "CorralDiskNearFull looks at this. `corral prune` makes room.", "percentunit",
              Query(f"place:corral_disk_free:ratio{{{_W}}}", "{{place}}"), most=1),
        lines("The store", "Steps are models that came or went.", "bytes",
              Query(f"sum by (instance) (corral_store_bytes{{{_W}}})", "{{instance}}")),
    ),
    span="now-6h",
)  # fmt: skip
