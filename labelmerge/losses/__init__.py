"""Pixel embeddings × label vectors → loss: L_HD, L_LD and L_WD of SSIW (Yin et al., IJCV 2024, eq. 1–7)."""

from labelmerge.losses.box import box_embedding_loss
from labelmerge.losses.pixel import pixel_cosine_loss, trimmed_pixel_cosine_loss
from labelmerge.losses.table import LabelTable

__all__ = ["LabelTable", "box_embedding_loss", "pixel_cosine_loss", "trimmed_pixel_cosine_loss"]
