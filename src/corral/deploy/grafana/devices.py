"""The dashboard of devices: who holds their memory, how busy, hot and hungry they are. Pure data."""

from __future__ import annotations

from typing import Final

from corral.deploy.grafana.board import INSTANCE, Board, Variable
from corral.deploy.grafana.panels import GREEN, RED, YELLOW, Panel, Query, lines, row, stat, table

_I: Final = 'instance=~"$instance"'
_W: Final = f'{_I}, device=~"$device"'

_PLANNED: Final = (
    f'corral_footprint_bytes{{{_W}, origin="measured"}} '
    f'or ignoring (origin) corral_footprint_bytes{{{_W}, origin="predicted"}}'
)
"""What plans go by: the measured figure where there is one."""

_MEMORY: Final[tuple[Panel, ...]] = (
    stat("Fullest device", "Of its memory. What others than Corral hold is in it.", "percentunit",
         f"max(device:corral_device_memory_used:ratio{{{_W}}})", limits=((0.9, YELLOW), (0.97, RED))),
    stat("Fullest budget", "What models really hold of what they may.", "percentunit",
         f"max(device:corral_budget_used:ratio{{{_W}}})", limits=((0.9, YELLOW), (1, RED))),
    stat("Least free", "On any device. Under some hundred MiB the next start may fail.", "bytes",
         f"min(corral_device_memory_free_bytes{{{_W}}})", limits=((0, RED), (256 << 20, YELLOW), (1 << 30, GREEN))),
    stat("Engines not tried", "They failed, and wait for the end of a pause or for somebody who asks.", "none",
         f"count(corral_breaker_state{{{_I}}} > 0) or vector(0)", limits=((1, YELLOW),)),
    table("Devices", "What Corral found; `corral doctor` says what it did not.", "none",
          f"corral_device_info{{{_W}}}", {"device": "Device", "vendor": "Maker", "name": "Name", "instance": "Server"},
          height=4),
    row("Memory"),
    lines("Memory that is used", "Of each device, by everybody.", "percentunit",
          Query(f"device:corral_device_memory_used:ratio{{{_W}}}", "{{device}}"), most=1, limits=((0.97, RED),)),
    lines("Free memory", "What a start can have. Falling without a start: another program takes it.", "bytes",
          Query(f"min by (device) (corral_device_memory_free_bytes{{{_W}}})", "{{device}} free"),
          Query(f"max by (device) (corral_device_memory_total_bytes{{{_W}}})", "{{device}} in all")),
    lines("Held by others", "By programs that are not Corral's. It counts against what models can have.", "bytes",
          Query(f"max by (device) (corral_device_memory_others_bytes{{{_W}}})", "{{device}}")),
    lines("Held by models", "Which model the room goes to: what to unload, or make smaller.", "bytes",
          Query(f"sum by (model, device) (corral_unit_memory_bytes{{{_W}}})", "{{model}} on {{device}}"), stack=True),
    lines("Budget and what is held of it", "Held above planned, near the budget: engines are larger than predicted.",
          "bytes",
          Query(f"max by (device) (corral_device_memory_budget_bytes{{{_W}}})", "{{device}} budget"),
          Query(f"sum by (device) (corral_unit_memory_bytes{{{_W}}})", "{{device}} held"),
          Query(f"sum by (device) ({_PLANNED})", "{{device}} planned")),
    lines("Budget used", "The alert CorralMemoryNearBudget looks at this.", "percentunit",
          Query(f"device:corral_budget_used:ratio{{{_W}}}", "{{device}}"), limits=((0.95, RED),)),
)  # fmt: skip

_WORK: Final[tuple[Panel, ...]] = (
    row("Work, heat, power"),
    lines("How busy", "Full while answers are slow: it is too much work. Idle then: the wait is elsewhere.",
          "percentunit", Query(f"max by (device) (corral_device_utilisation_ratio{{{_W}}})", "{{device}}"), most=1),
    lines("Temperature", "Level at the device's bound, with slower answers: it throttles itself.", "celsius",
          Query(f"max by (device) (corral_device_temperature_celsius{{{_W}}})", "{{device}}")),
    lines("Power", "At its limit: no faster than this. Far under it while busy: memory is what it waits for.", "watt",
          Query(f"max by (device) (corral_device_power_watts{{{_W}}})", "{{device}} draws"),
          Query(f"max by (device) (corral_device_power_limit_watts{{{_W}}})", "{{device}} may draw")),
    lines("Breakers", "0: tried. 1: tried again after a pause. 2: left alone until somebody asks.", "none",
          Query(f"max by (target) (corral_breaker_state{{{_I}}})", "{{target}}"), most=2),
    lines("Engines without their GPU", "By model; back to 0 within seconds of the GPU's return.", "none",
          Query(f"sum by (model) (corral_unit_degraded{{{_I}}})", "{{model}}")),
    lines("Started with less", "What was given up for want of memory or a GPU.", "none",
          Query(f"sum by (model, reason) (increase(corral_fallbacks_total{{{_I}}}[$__rate_interval]))",
                "{{model}}: {{reason}}")),
)  # fmt: skip

DEVICES: Final = Board(
    "corral-devices",
    "Corral: devices and memory",
    "Who holds the memory of each device, and how busy, hot and hungry it is.",
    (INSTANCE, Variable("device", "Device", f"corral_device_info{{{_I}}}")),
    (*_MEMORY, *_WORK),
)
