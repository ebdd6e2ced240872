"""Results -> pages: tables, plots, the HTML report, the model card. Knows plain records only."""
