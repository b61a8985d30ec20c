"""USSS: one encoder, a decoder for each dataset, and entropy on unlabelled images (Kalluri et al., ICCV 2019)."""
