"""The choice of a device: by name, for studies, the doctor and panels; what is not there is refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from explainlib import panels, studies
from explainlib.__main__ import main
from explainlib.compute import chosen_device
from explainlib.doctor import device_finding
from explainlib.studies.place import computing_on, placed


@pytest.fixture
def gpus(monkeypatch):
    """Let torch say that there are two GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_takes_a_gpu_where_there_is_one(gpus):
    assert chosen_device() == torch.device("cuda:0") == chosen_device("cuda")
    assert chosen_device("cuda:1") == torch.device("cuda:1") and chosen_device("cpu") == torch.device("cpu")


def test_auto_takes_the_cpu_where_there_is_none(no_gpu):
    assert chosen_device() == chosen_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "mps", "cuda:", "cuda:-1", "cuda:x", "CPU", ""])
def test_unknown_names(gpus, name):
    with pytest.raises(ValueError, match="is unknown; pass 'auto', 'cpu', 'cuda'"):
        chosen_device(name)


def test_missing_gpus(gpus, monkeypatch):
    with pytest.raises(ValueError, match="'cuda:2' is not at hand: there are 2 GPUs, numbered from 0; pass 'cpu'"):
        chosen_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' is not at hand: .*; pass 'cpu' or 'auto'"):
        chosen_device("cuda")


@pytest.mark.parametrize("command", [["doctor"], ["study", "influence"], ["study", "tlxml"]])
@pytest.mark.parametrize(("name", "said"), [("cuda", "is not at hand"), ("gpu", "is unknown")])
def test_the_command_line_refuses_in_one_line(no_gpu, capsys, tmp_path, command, name, said):
    out = ["--out", str(tmp_path)] if command[0] == "study" else []
    assert main([*command, "--device", name, *out]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_judging_all_claims_takes_no_device(capsys):
    assert main(["study", "all", "--device", "cpu"]) == 2 and "leave --device out" in capsys.readouterr().err


@pytest.mark.parametrize("name", studies.names())
def test_every_study_computes_where_it_is_told(gpus, monkeypatch, tmp_path, name):
    places = []

    def compute(study, settings, folder, *, processes, device):
        places.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "compute", compute)
    for device in ("auto", "cuda:1", "cpu"):
        with pytest.raises(KeyboardInterrupt):
            studies.run(name, out=tmp_path, device=device)
    assert places == [torch.device(device) for device in ("cuda:0", "cuda:1", "cpu")]


def test_the_doctor_names_the_device(gpus):
    assert "cuda:1, a GPU" in str(device_finding("cuda:1"))
    assert "CPU, as asked for; there is a GPU" in str(device_finding("cpu"))


@pytest.mark.parametrize("panel", [panels.Fragility, panels.Distributions])
def test_panels_refuse_what_is_not_there(no_gpu, panel):
    with pytest.raises(ValueError, match="is not at hand"):
        panel(device="cuda")
    assert panel().device == torch.device("cpu")


def test_what_is_placed_goes_back():
    model = torch.nn.Linear(1, 1)
    with computing_on(torch.device("meta")):
        assert placed(model).weight.device.type == "meta"
    assert placed(torch.nn.Linear(1, 1)).weight.device.type == "cpu"


def test_a_record_names_the_device_of_the_study_and_no_other(gpus, tmp_path):
    from explainlib.studies.record import read_record, write_provenance

    said = {"command": "x", "settings": {}, "seconds": {}}
    on_cpu = read_record(write_provenance(tmp_path / "a.json", **said), "")
    on_gpu = read_record(write_provenance(tmp_path / "b.json", **said, device=torch.device("cuda:1")), "")
    assert on_cpu["device"].startswith("CPU") and on_gpu["device"] == "a GPU (cuda:1)"
