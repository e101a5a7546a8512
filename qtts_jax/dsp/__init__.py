"""Signal processing as pure functions of arrays: spectra, mel filters, loudness."""
