# make demo   the main job on real footage, from nothing
# make test   everything that the tests need, then the tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo_out
# Real footage that a PyPI wheel carries; VIDEO=my.mp4 takes one's own.
FOOTAGE = $(shell $(BIN)/python tools/footage.py bikes.mp4)

.PHONY: demo test lint train clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[all]"
	touch $@

demo: $(VENV)/installed
	$(BIN)/depth-engine estimate "$(if $(VIDEO),$(VIDEO),$(FOOTAGE))" -o $(OUT) --overwrite
	@echo
	@echo "The results are in $(OUT)/, a folder per clip. Open its report.html in a browser: clip and depth in step;"
	@echo "depth.mkv is the 16-bit depth, preview.mp4 both side by side, depth.json says how it was made."

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m slow

# The bundled checkpoint, again from nothing (MINUTES on this machine).
MINUTES ?= 90
train: $(VENV)/installed
	$(BIN)/depth-train run bundled -o trained --budget-minutes $(MINUTES) $(if $(wildcard trained/resume),--resume)
	$(BIN)/depth-train score trained

clean:
	rm -rf $(OUT) .pytest_cache .ruff_cache
