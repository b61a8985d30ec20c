"""LMSeg: segments by queries, named by the label vectors that they are nearest to (Zhou et al., ICLR 2023)."""
