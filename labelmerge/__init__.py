"""labelmerge: merge segmentation datasets by what their labels mean."""

__version__ = "0.1.0"
