"""The report of runs: figures of one evaluation pass, measured speed, and the page that shows them."""
