"""The captioning task: images with captions, as batches of `Prompts`."""

from functools import cached_property

from torch.utils.data import Dataset
from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_plugins.tasks.captioning.collate import Row, collator
from lrl_plugins.tasks.captioning.features import FeatureFile
from lrl_plugins.tasks.captioning.images import PixelReader
from lrl_plugins.tasks.captioning.sources import (
    CaptionedImage,
    CocoAnnotations,
    DrawnScenes,
    JsonLines,
    KarpathySplit,
    Source,
)
from lrl_plugins.tasks.splits import FILES, Serving, SplitTask
from lrl_plugins.tasks.tokenizers import make_tokenizer
from lrl_plugins.tasks.turns import in_turn

__all__ = ["Captioning", "CocoAnnotations", "DrawnScenes", "FeatureFile", "JsonLines", "KarpathySplit", "Source"]


class CaptionedRows(Dataset[list[Row]]):
    """The images of one split; entry (image, epoch) holds its rows in that epoch.

    Args:
        images: The images.
        first_group: Group number of the first one.
        tokenizer: Makes targets of captions.
        max_length: Longest target in tokens, EOS counted.
        captions_per_image: Captions to learn from per image and epoch; None = the first one, in every epoch.
        seed: Of the order in which captions take turns.
        pixels: Reads pictures; None where features stand in for them.
        features: Precomputed features; None where pictures are read.
    """

    def __init__(
        self,
        images: list[CaptionedImage],
        first_group: int,
        tokenizer: Tokenizer,
        max_length: int,
        captions_per_image: int | None,
        seed: int,
        pixels: PixelReader | None,
        features: FeatureFile | None,
    ) -> None:
        self.images = images
        self.first_group = first_group
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.captions_per_image = captions_per_image
        self.seed = seed
        self.pixels = pixels
        self.features = features

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> list[Row]:
        index, epoch = key
        image = self.images[index]
        pixels = regions = None
        if self.features is not None:
            regions = self.features.regions(image.id)
        elif self.pixels is not None and image.picture is not None:
            pixels = self.pixels.read(index, image.picture)
        return [
            Row(image.id, self.first_group + index, caption, self._target(caption), image.captions, pixels, regions)
            for caption in self.captions(index, epoch)
        ]

    def captions(self, index: int, epoch: int) -> list[str]:
        """An image's captions to learn from: they take turns in an order of the image's own, so all are seen."""
        captions = self.images[index].captions
        return in_turn(captions, epoch, self.captions_per_image, f"captions/{self.seed}/{index}")

    def _target(self, caption: str) -> tuple[int, ...]:
        return (*self.tokenizer.encode(caption)[: self.max_length - 1], self.tokenizer.eos)


class Captioning(SplitTask):
    """Say what is in a picture. Without arguments: drawn scenes, nothing to download.

    Every image is one prompt: `batch_size` images per step and rank, each once per epoch. Validation and test show
    every image once, with its first caption as the target. Everything is read and checked when the recipe is read.

    Args:
        source: Where captions and pictures come from: DrawnScenes, CocoAnnotations, KarpathySplit, JsonLines or a
            class of your own; None = DrawnScenes().
        features: Precomputed features, looked up by image id, that stand in for the pictures; None = pictures.
        batch_size: Images per step and rank.
        captions_per_image: Captions to learn from per image and epoch (fewer where an image has fewer); from epoch to
            epoch they take turns.
        max_length: Longest target in tokens, EOS counted; longer captions are cut.
        tokenizer: A folder with a transformers tokenizer or a .json written by WordTokenizer.save; None = the words
            of the training captions.
        min_count: Words that occur less often in the training captions become <unk>; only where tokenizer is None.
        image_size: Height and width in pixels: the shorter side is brought to it, the middle is cut out.
        mean: Subtracted from red, green and blue, on a scale of 0 to 1.
        std: Then divided by.
        cache_images: Whether to keep decoded pictures in memory, up to 1 GiB per split (without workers only).
        check_images: Whether to look for every picture and open its header before training starts.
        num_workers: Processes that load; 0 loads in the training process.
        seed: Of the order of images and captions.
    """

    def __init__(
        self,
        source: Source | None = None,
        features: FeatureFile | None = None,
        batch_size: int = 16,
        captions_per_image: int = 1,
        max_length: int = 20,
        tokenizer: str | None = None,
        min_count: int = 1,
        image_size: int = 48,
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
        cache_images: bool = True,
        check_images: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source if source is not None else DrawnScenes()
        self.features = features
        self.batch_size = batch_size
        self.captions_per_image = captions_per_image
        self.max_length = max_length
        self.tokenizer_name = tokenizer
        self.min_count = min_count
        self.image_size = image_size
        self.mean = mean
        self.std = std
        self.cache_images = cache_images
        self.check_images = check_images
        self.num_workers = num_workers
        self.seed = seed
        self._check_numbers()

    def facts(self) -> TaskFacts:
        rows = self._rows["train"]
        example = [rows[i % len(rows), 0][:1] for i in range(2)]
        references = tuple(image.captions for image in self.images["train"])
        return TaskFacts(self.tokenizer, references, collator(self.tokenizer.pad)(example))

    def metrics(self, stage: str) -> Metric:
        from lrl_plugins.tasks.captioning.metrics import CaptionMetrics, PublishedCaptionMetrics

        return PublishedCaptionMetrics() if stage == "test" else CaptionMetrics()

    def splits(self) -> dict[str, CaptionedRows]:
        return self._rows

    @cached_property
    def images(self) -> dict[str, list[CaptionedImage]]:
        """The images by split, checked."""
        splits = {split: images for split, images in self.source.splits().items() if images or split != "test"}
        for split in ("train", "val"):
            if not splits.get(split):
                raise ValueError(
                    f"{type(self.source).__name__}: got no images in split {split!r}, expected at least one. Name a "
                    "file that has some, or correct the names of the splits."
                )
        for split, images in splits.items():
            self._check(split, images)
        return splits

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back."""
        texts = (caption for image in self.images["train"] for caption in image.captions)
        return make_tokenizer(self.tokenizer_name, texts, self.min_count)

    @cached_property
    def _rows(self) -> dict[str, CaptionedRows]:
        rows, first = {}, 0
        for split, images in self.images.items():
            pixels = None
            if self.features is None:
                pixels = PixelReader(self.image_size, self.mean, self.std, self.cache_images and not self.num_workers)
            per_image = self.captions_per_image if split == "train" else None
            rows[split] = CaptionedRows(
                images, first, self.tokenizer, self.max_length, per_image, self.seed, pixels, self.features
            )
            first += len(images)
        return rows

    def serving(self) -> Serving:
        name, collate = type(self.source).__name__, collator(self.tokenizer.pad)
        return Serving(name, "images", FILES, collate, self.batch_size, self.seed, self.num_workers)

    def _check(self, split: str, images: list[CaptionedImage]) -> None:
        """Raise ValueError for what would otherwise stop the run hours later."""
        who = f"{type(self.source).__name__}: got"
        silent = [image.id for image in images if not image.captions]
        if silent:
            raise ValueError(
                f"{who} {len(silent)} images without a caption in split {split!r} (first: {', '.join(silent[:3])}), "
                "expected at least one each. Take them out or caption them."
            )
        if len({image.id for image in images}) < len(images):
            raise ValueError(
                f"{who} {len(images)} images with {len({image.id for image in images})} different ids in split "
                f"{split!r}, expected an id of its own for each. Correct the file or set id_field."
            )
        if self.features is not None:
            self.features.check([image.id for image in images])
            return
        faults = [fault for image in images if (fault := self._fault(image)) is not None]
        if faults:
            raise ValueError(
                f"{who} {len(faults)} pictures of {len(images)} in split {split!r} that cannot be read (first: "
                f"{'; '.join(faults[:3])}), expected all. Complete the pictures, correct `images`, or take them out."
            )

    def _fault(self, image: CaptionedImage) -> str | None:
        if image.picture is None:
            return f"{image.id} has neither a picture nor features, give the source `images` or the task `features`"
        return image.picture.check() if self.check_images else None

    def _check_numbers(self) -> None:
        least = {"batch_size": 1, "captions_per_image": 1, "max_length": 2, "min_count": 1, "image_size": 1}
        given = {name: self.__dict__[name] for name in least}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(
                    f"Captioning: got {name} {value}, expected at least {least[name]}. Correct it in the recipe."
                )
