"""Networks by themselves."""

from functools import partial

from pixelwise import config as configs
from pixelwise.bench.networks import Network
from pixelwise.bench.networks import networks as measure_networks
from pixelwise.data.cache import default_folder
from pixelwise.inference import predictor
from pixelwise.models.unet import UNet, build
from pixelwise.training.machine import Stopwatch
from pixelwise.training.watch import Watcher


def unet(config: configs.ModelConfig | None = None, *, channels: int = 3, classes: int = 2) -> UNet:
    """A U-Net as a plain torch module, from images B C H W to logits B K H W, with He's initialisation.

    Args:
        config: width, depth, normalisation ...; `pixelwise.config.SIZES` has named ones.
        channels: C of the images.
        classes: K of the logits.
    """
    return build(config or configs.ModelConfig(), channels, classes)


def networks(device: str = "auto", watcher: Watcher | None = None, *, speeds: bool = True) -> list[Network]:
    """The named networks with parameters, arithmetic and speed on this machine.

    Args:
        device: auto, cpu, cuda or mps.
        watcher: told how far it is.
        speeds: measure them; else they are none.

    Raises:
        ConfigError: there is no such device.
        MachineError: one of them does not fit into memory.
    """
    chosen = predictor.choose_device(device)
    stopwatch = Stopwatch(chosen, default_folder()) if speeds else None
    return measure_networks(stopwatch, partial((watcher or Watcher()).work, "measuring networks"))
