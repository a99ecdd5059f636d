"""Images for classifiers: (images uint8 (N, 3, H, W), labels int64 (N,)) on the device.

A training image without a label has the label -1.

No loader normalises: each model has its own mean and standard deviation. Everything random in an
epoch is a function of the seed, the epoch and the image.
"""

from classification.data.batches import EpochBatches, Share
from classification.data.build import Data, DataSettings, Loader, build_loaders
from classification.data.device_loader import DeviceLoader
from classification.data.sources import Source, Split, load_source
from classification.data.worker_loader import WorkerLoader

__all__ = [
    "Data",
    "DataSettings",
    "DeviceLoader",
    "EpochBatches",
    "Loader",
    "Share",
    "Source",
    "Split",
    "WorkerLoader",
    "build_loaders",
    "load_source",
]
