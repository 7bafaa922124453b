"""Where candles come from: exchanges, files, imports, and the candle history that a run reads."""
