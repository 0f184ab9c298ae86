"""Every setting of Pixelwise: one typed, frozen home for each, and a strict door.

A setting has its default here and nowhere else. Settings that a caller did not give are *free*:
the plan may choose a better value for them and says why. `Config.given` tells which ones are not.
"""

import difflib
import itertools
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pixelwise.errors import ConfigError, DataError

SizePx = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
"""Height and width in pixels."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


def parse_seconds(value: object) -> object:
    """Seconds from a number or from text such as '90', '90s', '15m', '1h30m'.

    Raises:
        ValueError: the text is not a duration.
    """
    if not isinstance(value, str):
        return value
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    seconds, digits = 0.0, ""
    for letter in value.strip().lower() + ("" if value.strip()[-1:].isalpha() else "s"):
        if letter in units and digits:
            seconds, digits = seconds + float(digits) * units[letter], ""
        elif letter.isdigit() or letter == ".":
            digits += letter
        else:
            raise ValueError(f"'{value}' is not a duration; write 90s, 15m or 1h30m")
    return seconds


def parse_bytes(text: str) -> int:
    """Bytes from text such as '2GB', '500MB' or '1.5GiB'.

    Raises:
        ConfigError: the text is no amount of memory.
    """
    try:
        return TypeAdapter(ByteSize).validate_python(text)
    except ValidationError:
        raise ConfigError(f"'{text}' is no amount of memory.", remedy="Write 2GB, 500MB or 1.5GiB.") from None


def _square(value: object) -> object:
    """One number stands for a square."""
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


FEWEST_UNITS = 5
"""Of fewer images or groups no score has an interval: what they have in common says nothing of others."""

LARGEST_EDGE_PX = 8192
"""No patch, tile or resized image has a longer edge."""

_Edge = Annotated[int, Field(ge=1, le=LARGEST_EDGE_PX)]
Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0.0)]
Size = Annotated[tuple[_Edge, _Edge], BeforeValidator(_square)]
"""Height and width in pixels; one number stands for both."""


Flips = Literal["none", "horizontal", "both", "rotations"]
"""Views of an image over which a prediction is averaged."""


_FORMS = {
    r"^timm/[\w.\-]+$": "input should be timm/NAME",
    r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$": "input should be module:name, a part of your own",
}
"""What a text has to look like, by the pattern that says so."""

_TIMM, _OUTSIDE = _FORMS

Outside = Annotated[str, Field(pattern=_OUTSIDE)]
"""A part of the user's own, as `module:name`: `my_parts:MyEncoder` is MyEncoder in my_parts.py."""


class Section(BaseModel):
    """A group of settings: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(Section):
    """From files to batches."""

    resize: Size | None = None
    """Every image is resized to this height and width; none keeps the original size."""
    patch_size: Size = (256, 256)
    """Height and width of what the network sees in training."""
    validation_fraction: Fraction = 0.15
    """Share of the images held back to choose the best model, where the folder gives no split."""
    test_fraction: Fraction = 0.15
    """Share of the images held back for the final scores, where the folder gives no split."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """The images that are not for the final scores are dealt into so many parts, one of which validates; none draws
    `validation_fraction` instead."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The part that validates, from 0 to `folds` - 1."""
    normalisation: Literal["standard", "image", "none"] = "standard"
    """`standard`: zero mean, unit deviation per channel over the training split; `image`: the same per image."""
    foreground_fraction: Fraction = 0.33
    """Share of training patches centred on a pixel of a class drawn at random."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read patches; 0 reads in the training process."""
    resident: bool = False
    """All training images lie in the memory of the device, a GPU, which cuts the patches itself."""
    cache: Path | None = None
    """Folder of decoded images; none means the user's cache folder."""


class Preprocessing(Section):
    """What is done to an image before the network sees it; kept in the bundle with the weights."""

    channels: Annotated[int, Field(ge=1, le=65536)]
    """Channels C of the images the network was trained on."""
    normalisation: Literal["standard", "image", "none"]
    """As `DataConfig.normalisation`."""
    mean: tuple[FiniteFloat, ...]
    """Per channel, in raw pixel values (`standard`)."""
    deviation: tuple[Annotated[FiniteFloat, Field(gt=0.0)], ...]
    """Per channel, in raw pixel values (`standard`)."""
    types: tuple[str, ...] = ()
    """Number types of the training images, such as uint8; nothing if it is not known."""
    largest: float = 0.0
    """Largest pixel value of the training images."""
    resize: Size | None = None
    """Height and width images are resized to."""
    slices: Literal[0, 1, 2] | None = None
    """Axis of volumes across which slices are taken; none goes by the spacing of voxels."""

    @model_validator(mode="after")
    def _has_all_channels(self) -> "Preprocessing":
        if not len(self.mean) == len(self.deviation) == self.channels:
            raise ValueError(
                f"{len(self.mean)} means and {len(self.deviation)} deviations for {self.channels} channels"
            )
        return self


class ModelConfig(Section):
    """The network."""

    encoder: Literal["plain"] | Annotated[str, Field(pattern=_TIMM)] | Outside = "plain"
    """Contracting path: the paper's (`plain`), one of timm's feature extractors (`timm/resnet34`), or one of your own
    (`my_parts:MyEncoder`)."""
    encoder_weights: Literal["none", "hub"] | Path = "none"
    """What a timm encoder starts from: weights of its name from the hub, or from a local safetensors file."""
    block: Literal["plain", "residual"] = "plain"
    """What a level is made of: convolutions, or convolutions whose result is added to what came in."""
    squeeze_excitation: bool = False
    """The features of a level are weighed by what they are like over the whole image."""
    bottleneck: Literal["plain", "dilated"] = "plain"
    """`dilated` sees farther: convolutions with gaps of 1, 2, 4 and 8 places follow on the coarsest level."""
    decoder: Literal["plain", "nested"] = "plain"
    """Expanding path: the paper's, or U-Net++'s with further blocks between the two paths."""
    attention: bool = False
    """What goes from the contracting to the expanding path is weighed place by place."""
    width: Annotated[int, Field(ge=1, le=4096)] = 32
    """Features of the finest level; they double at every level down."""
    stride: Literal[1, 2, 4] = 1
    """Pixels per edge of the blocks that the finest level works on; 2 is four times as fast, with coarser outlines."""
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    """How many times the finest level is halved."""
    max_width: Annotated[int, Field(ge=1, le=65536)] = 512
    """No level has more features than this."""
    convolutions: Annotated[int, Field(ge=1, le=16)] = 2
    """3 x 3 convolutions per level."""
    norm: Literal["batch", "instance", "group", "none"] = "batch"
    """Normalisation after each convolution."""
    activation: Literal["relu", "leaky_relu"] = "relu"
    """What follows it."""
    downsampling: Literal["max_pool", "convolution"] = "max_pool"
    """How a level is halved: by its 2 x 2 maxima, or by a first convolution with a stride of 2."""
    deep_supervision: bool = False
    """In training the coarser levels give masks too, that count half as much from level to level."""
    padded: bool = True
    """Keep the image size. The paper's network does not and gives a smaller map."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of bottleneck features dropped in training."""

    def only_padded(self) -> list[str]:
        """The settings, as they are written, that a network without padding cannot have."""
        chosen = {
            "model.stride above 1": self.stride > 1,
            "model.downsampling=convolution": self.downsampling == "convolution",
            "model.deep_supervision": self.deep_supervision,
            "model.block=residual": self.block == "residual",
            "model.bottleneck=dilated": self.bottleneck == "dilated",
            "model.decoder=nested": self.decoder == "nested",
            "model.attention": self.attention,
            f"model.encoder={self.encoder}": self.encoder != "plain",
        }
        return [name for name, is_chosen in chosen.items() if is_chosen]


SIZES: dict[str, dict[str, Any]] = {
    "nano": {"width": 8, "depth": 3},
    "tiny": {"width": 16, "depth": 4},
    "small": {"width": 32, "depth": 4},
    "medium": {"width": 48, "depth": 5},
    "large": {"width": 64, "depth": 5},
    "nnunet": {
        "width": 32,
        "depth": 6,
        "norm": "instance",
        "activation": "leaky_relu",
        "downsampling": "convolution",
        "deep_supervision": True,
    },
    "paper": {
        "width": 64,
        "depth": 4,
        "max_width": 1024,
        "norm": "none",
        "padded": False,
        "dropout": 0.5,
    },
}
"""Named networks: `--set model=paper`. `paper` is the one of Ronneberger et al. (2015), `nnunet` the one that nnU-Net
(Isensee et al., 2021) plans for patches of 256 px."""


WEIGHTED = ("cross_entropy", "dice_cross_entropy", "focal")
"""Losses that class weights have an effect on."""


class LossConfig(Section):
    """What training makes small."""

    name: Literal["cross_entropy", "dice", "dice_cross_entropy", "focal", "tversky", "lovasz"] | Outside = (
        "dice_cross_entropy"
    )
    """Which loss, or one of your own (`my_parts:my_loss`)."""
    class_weights: Literal["none", "balanced"] | tuple[Positive, ...] = "none"
    """Weight of each class in cross-entropy and focal loss; `balanced` is one over the root of its frequency."""
    dice_weight: NonNegative = 1.0
    """Weight of the Dice part beside cross-entropy."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the target spread over all classes (cross-entropy)."""
    focal_gamma: NonNegative = 2.0
    """How strongly easy pixels are played down (focal)."""
    tversky_alpha: NonNegative = 0.3
    """Price of a false positive (Tversky)."""
    tversky_beta: NonNegative = 0.7
    """Price of a false negative (Tversky)."""
    teacher_weight: Fraction = 0.5
    """Share of a teacher's probabilities in the loss (`train --teacher`); the rest is the masks'."""
    border_weight: NonNegative = 0.0
    """Extra weight w0 of pixels between close objects (equation 2 of the U-Net paper); 0 is off, 10 is the paper's."""
    border_sigma_px: Positive = 5.0
    """Width sigma of that border, in pixels."""


class AugmentConfig(Section):
    """Random changes of training patches. Every range is multiplied by `strength`; 0 is the identity."""

    strength: NonNegative = 1.0
    """Scales the ranges below, but not the probabilities; 0 switches everything off."""
    flip_horizontal: Fraction = 0.5
    """Probability of a left-right flip."""
    flip_vertical: Fraction = 0.5
    """Probability of an upside-down flip."""
    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 180.0
    """Rotation is drawn from plus or minus this."""
    scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Size is multiplied by a factor between 1 / (1 + scale) and 1 + scale."""
    shear_degrees: Annotated[float, Field(ge=0.0, lt=60.0)] = 5.0
    """Shear is drawn from plus or minus this."""
    translation_fraction: Fraction = 0.0
    """Shift beyond the random crop, as a share of the patch."""
    elastic_sigma_px: NonNegative = 10.0
    """Deviation of the displacement vectors of the elastic deformation, in pixels (the U-Net paper: 10)."""
    elastic_spacing_px: Positive = 64.0
    """Distance of those vectors."""
    geometric_probability: Fraction = 0.8
    """Share of patches that are rotated, scaled, sheared and deformed."""
    brightness: NonNegative = 0.3
    """Shift, in standard deviations of the image."""
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Contrast is multiplied by a factor between 1 - contrast and 1 + contrast."""
    gamma: NonNegative = 0.3
    """Exponent is drawn between 1 / (1 + gamma) and 1 + gamma."""
    noise: NonNegative = 0.1
    """Largest deviation of Gaussian noise, in standard deviations of the image."""
    blur_sigma_px: NonNegative = 1.0
    """Largest deviation of Gaussian blur, in pixels."""
    saturation: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """How far the channels of a pixel, once normalised, lie apart is multiplied by 1 - saturation to 1 + saturation."""
    tint: NonNegative = 0.0
    """Largest shift of each channel by itself, in standard deviations of the image: another light, another stain."""
    intensity_probability: Fraction = 0.3
    """Share of patches that each of brightness, contrast, gamma, noise, blur, saturation and tint changes."""
    own: Outside | None = None
    """A function of your own that changes the patches last (`my_parts:my_augmentation`)."""


class TrainingConfig(Section):
    """The loop."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of `steps_per_epoch` batches each; none leaves it to the time budget, or to the plan."""
    time: Seconds | None = None
    """Budget for everything, from reading to report; the learning rate falls over it. 90 (seconds), '15m', '1h30m'."""
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Batches between two validations; none means so many that every training pixel is drawn once on average."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Patches per step, over all processes together."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """A step is computed in so many parts, one after the other, to take less memory; batch statistics are a part's."""
    memory: ByteSize | None = None
    """What the process, or on a GPU its tensors, may take in training: '8GB'; none is four fifths of what is free."""
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    """Update rule."""
    learning_rate: Positive = 1e-3
    """Peak rate, reached after the warm-up."""
    weight_decay: NonNegative = 1e-2
    """Decoupled for AdamW, L2 for Adam and SGD."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Momentum of SGD, beta1 of Adam."""
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of the run in which the rate rises."""
    clip_norm: NonNegative = 1.0
    """Gradients are scaled down to this norm; 0 is off."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """Per-step decay of the averaged weights that are validated and saved; 0 is off."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better validation score; 0 never stops early."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of convolutions; weights stay float32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    cuda_graphs: bool = False
    """Record what a step does with the network once and replay it: faster where its maps are small. On one CUDA GPU, in
    steps of one part; without effect elsewhere."""
    shard: bool = False
    """Divide weights, gradients, moments and their average among processes (FSDP), for a network too large for each."""
    deterministic: bool = True
    """Equal seeds give equal weights on one machine, in runs by epochs."""


class FinetuneConfig(Section):
    """How a run that starts from another one (`train --from`) departs from it."""

    freeze: Literal["none", "encoder", "all_but_head"] = "none"
    """What stays as it was, its normalisation statistics too: nothing, the contracting path, or all but the output."""
    rate_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """The learning rate of each level is so many times that of the next one towards the output: below 1, features of
    all images change less than those of some."""
    merge: dict[str, list[str]] = {}
    """Classes that begin as several of the old run together: {vehicle: [car, bus]}."""


class PredictionConfig(Section):
    """From an image to a mask."""

    tile_size: Size | None = None
    """Height and width of a tile; none means twice the training patch."""
    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Share of a tile that it has in common with its neighbour."""
    blend: Literal["gaussian", "constant"] = "gaussian"
    """Weight of overlapping tiles."""
    flips: Flips = "none"
    """Average over the image and its mirror image (`horizontal`, for scenes with an up and a down), over the four flips
    (`both`), or over these and their quarter turns (`rotations`): two, four or eight times as slow, often slightly
    better."""


class PostprocessingConfig(Section):
    """What is done to a network's probabilities and masks, found on validation images (`pixelwise refine`)."""

    class_factors: tuple[Positive, ...] | None = None
    """The probability of each class is multiplied by this, and all are made to sum to 1 again."""
    smallest_px: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Objects of each class with fewer pixels take the class around them."""


def _named_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in SIZES:
        raise ValueError(f"no network is called '{value}'; there are {', '.join(SIZES)}")
    return SIZES[value]


class EvaluationConfig(Section):
    """From masks to scores."""

    tolerance_px: NonNegative = 2.0
    """Surface Dice counts outlines as right that are not farther from the true one, in pixels."""


class Config(Section):
    """All settings of a run."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Split, initial weights, patches and augmentation follow from it."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    data: DataConfig = DataConfig()
    model: Annotated[ModelConfig, BeforeValidator(_named_size)] = ModelConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingConfig = TrainingConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prediction: PredictionConfig = PredictionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        if not self.model.padded and (unpadded := self.model.only_padded()):
            raise ValueError(f"{' and '.join(unpadded)} need{'s' * (len(unpadded) == 1)} model.padded=true")
        if self.model.encoder_weights != "none" and not self.model.encoder.startswith("timm/"):
            raise ValueError("model.encoder_weights is for encoders of timm, such as model.encoder=timm/resnet34")
        together = -(-self.training.batch_size // min(self.training.accumulate, self.training.batch_size))
        is_alone = self.model.norm == "instance" or (self.model.norm == "batch" and together == 1)
        if is_alone and max(self.data.patch_size) <= self.model.stride << self.model.depth:
            raise ValueError(
                f"model.norm={self.model.norm} needs maps of two places or more, and patches of "
                f"{max(self.data.patch_size)} pixels have one after being halved {self.model.depth} times; "
                "use model.norm=group"
            )
        if self.data.folds is not None and self.data.fold >= self.data.folds:
            raise ValueError(
                f"data.fold is {self.data.fold}; of {self.data.folds} folds the last is {self.data.folds - 1}"
            )
        if self.data.validation_fraction + self.data.test_fraction >= 1.0:
            raise ValueError("data.validation_fraction + data.test_fraction leave no image to train on")
        return self

    def given(self) -> set[str]:
        """Dotted names of the settings that were set by the caller, such as 'training.batch_size'."""
        return {
            f"{section}.{key}"
            for section in self.model_fields_set
            if isinstance(getattr(self, section), Section)
            for key in getattr(self, section).model_fields_set
        } | {key for key in self.model_fields_set if not isinstance(getattr(self, key), Section)}

    def value(self, key: str) -> Any:
        """The value of a setting by dotted name."""
        section, _, name = key.rpartition(".")
        return getattr(getattr(self, section), name) if section else getattr(self, name)

    def ignored(self) -> list[str]:
        """A sentence for every setting that the caller gave and that has no effect."""
        users = {
            "loss.class_weights": WEIGHTED,
            "loss.label_smoothing": ("cross_entropy", "dice_cross_entropy"),
            "loss.dice_weight": ("dice_cross_entropy",),
            "loss.focal_gamma": ("focal",),
            "loss.tversky_alpha": ("tversky",),
            "loss.tversky_beta": ("tversky",),
        }
        usual = Config()
        given = {key for key in self.given() if self.value(key) != usual.value(key)}
        unused = [
            f"{key} has no effect: loss.name is {self.loss.name}, and only {' and '.join(names)} use it"
            for key, names in users.items()
            if key in given and self.loss.name not in names
        ]
        if "loss.border_sigma_px" in given and not self.loss.border_weight:
            unused.append("loss.border_sigma_px has no effect: loss.border_weight is 0")
        if "data.fold" in given and self.data.folds is None:
            unused.append("data.fold has no effect: data.folds is not given")
        if {"training.accumulate", "training.batch_size"} <= given and (
            self.training.accumulate > self.training.batch_size
        ):
            unused.append("training.accumulate has no effect beyond training.batch_size")
        if "data.workers" in given and self.data.resident:
            unused.append("data.workers has no effect: data.resident is true")
        if "training.cuda_graphs" in given and (self.training.compile or self.training.accumulate > 1):
            unused.append("training.cuda_graphs has no effect with training.compile or training.accumulate")
        if self.model.deep_supervision and self.model.depth < 3 and "model.depth" in given:
            unused.append(
                "model.deep_supervision has no effect: a network with fewer than three levels has none for it"
            )
        return unused

    def with_values(self, values: Mapping[str, Any]) -> "Config":
        """The same settings with some replaced, by dotted name.

        Raises:
            ConfigError: a name or a value is not possible.
        """
        tree = self.model_dump(exclude_unset=True)
        for key, value in values.items():
            _put(tree, key, value)
        return validate(tree, origin="the settings")

    def to_yaml(self) -> str:
        """All settings with their values; reading them back leaves nothing free."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(file: Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Settings from a YAML file and from `section.key=value` texts, which win.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it holds no settings, or a key or value is not possible.
    """
    tree = _read(file) if file is not None else {}
    # a whole section first, whatever the order: `model=paper` shall not undo `model.width=8`
    for override in sorted(overrides, key=lambda text: "." in text.partition("=")[0]):
        key, equals, text = override.partition("=")
        if not equals or not key:
            what = f"'{key}' is given no value." if key else f"'{override}' is given to no setting."
            raise ConfigError(what, remedy=f"Write --set {key or 'KEY'}=VALUE, as --set training.batch_size=8.")
        _put(tree, key.strip(), _parse_value(text))
    return validate(tree, origin=str(file) if file is not None else "the settings")


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """A Config from nested dictionaries.

    Raises:
        ConfigError: every wrong key and value, all of them listed.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error, Config), where=origin) from None


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """A sentence for each setting with a problem of a pydantic model, unknown keys and words with the nearest known."""
    alike: dict[str, list[Any]] = {}
    for problem in error.errors():
        alike.setdefault(_key_of(problem["type"], problem["loc"]), []).append(problem)
    return " ".join(_sentence(key, problems, model) for key, problems in alike.items())


def _key_of(kind: str, location: tuple[int | str, ...]) -> str:
    # pydantic puts the names of union members and validators into the location; only ours are shown
    *outer, last = location or ("",)
    ours = [str(part) for part in outer if _is_ours(part)]
    if kind == "extra_forbidden" or _is_ours(last):
        ours.append(str(last))
    return ".".join(ours)


def _sentence(key: str, problems: Sequence[Any], model: type[BaseModel]) -> str:
    """About one setting; where it may be one of several kinds, there is a problem for each of them."""
    first = problems[0]
    if first["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(key, sorted(keys_of(model)), n=1, cutoff=0.0)
        return f"There is no setting '{key}'.{_hint(nearest)}"
    message, *others = map(_message, problems)
    if not key:
        return f"{message[0].upper()}{message[1:]}."
    message = ", or ".join([message, *(other.removeprefix("input should be ") for other in others)])
    words = re.findall(r"'([^']+)'", str(first.get("ctx", {}).get("expected", "")))
    nearest = difflib.get_close_matches(str(first["input"]), words, n=1)
    return f"'{key}' is {first['input']!r}: {message}.{_hint(nearest)}"


def _message(problem: Any) -> str:
    """What pydantic says of a value, without a capital letter."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    return _FORMS.get(problem.get("ctx", {}).get("pattern"), f"{message[0].lower()}{message[1:]}")


def _hint(nearest: Sequence[str]) -> str:
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def _is_ours(part: int | str) -> bool:
    return isinstance(part, int) or (part.isidentifier() and part not in _TYPES)


_TYPES = {"bool", "dict", "float", "int", "list", "str", "tuple"}
"""What pydantic calls the members of a union."""


def keys_of(model: type[BaseModel]) -> set[str]:
    """Dotted names of all settings of a model."""
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        nested = keys_of(inner) if isinstance(inner, type) and issubclass(inner, BaseModel) else set()
        keys |= {f"{name}.{key}" for key in nested} or {name}
    return keys


MOST_YAML = 1_000_000
"""Values in a file, those that are named once and repeated counted each time."""


def parse_yaml(text: str, as_text: Collection[str] = (), by_text: Collection[str] = ()) -> Any:
    """What a YAML file holds.

    Args:
        text: of the file.
        as_text: keys of the outermost level whose values are text as it is written, whatever YAML takes them for.
        by_text: keys of the outermost level that hold a table whose own keys are text in the same way.

    Raises:
        yaml.YAMLError: it is no YAML, or repeats itself millions of times.
        ValueError: it holds a date that does not exist, or a number of thousands of digits.
        RecursionError: it is nested too deeply, or holds itself.
    """
    loader = yaml.SafeLoader(text)
    top = loader.get_single_node()
    if top is None:
        return None
    if _values_in(top, {}) > MOST_YAML:
        raise yaml.YAMLError(f"it holds more than {MOST_YAML:,} values, aliases counted each time")
    if isinstance(top, yaml.MappingNode):
        for key, value in top.value:
            if key.value in as_text:
                _make_text(value)
            if key.value in by_text and isinstance(value, yaml.MappingNode):
                for name, _ in value.value:
                    _make_text(name)
    return loader.construct_document(top)


def _values_in(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases followed."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        parts = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_values_in(part, known) for part in parts)
    return known[id(node)]


def _make_text(node: yaml.Node) -> None:
    """Turns numbers, dates and truth values, also those in a list or table, into text; nothing stays nothing."""
    if isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":null", ":merge")):
        node.tag = "tag:yaml.org,2002:str"
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _make_text(item)
    elif isinstance(node, yaml.MappingNode):
        for _, value in node.value:
            _make_text(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = "There is no such file of settings."
        raise DataError(what, where=file, remedy="Name one, such as the config.yaml of a run.") from None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"The settings cannot be read ({why}).", where=file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that does not exist
        raise ConfigError(f"This is not valid YAML: {error}.", where=file) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("The file must hold sections such as 'training:' with settings below.", where=file)
    return tree


def _parse_value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that does not exist
        return text


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    node = tree
    for section in sections:
        inner = node.setdefault(section, {})
        if isinstance(inner, str) and section == "model" and inner in SIZES:
            inner = node[section] = dict(SIZES[inner])
        if not isinstance(inner, dict):
            raise ConfigError(f"'{key}' cannot be set: '{section}' is the value {inner!r}, not a section.")
        node = inner
    node[last] = value
