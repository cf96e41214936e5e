"""Pictures of a run: what it hides and rebuilds, and a forecast after what came before it. They need matplotlib,
`pip install "structmae[plots]"`."""

from structmae.report.forecasts import plot_forecast
from structmae.report.reconstruction import plot_reconstruction, save_picture

__all__ = ["plot_forecast", "plot_reconstruction", "save_picture"]
