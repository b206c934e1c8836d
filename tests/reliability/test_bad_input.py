"""Every mistake gets one clear message: what was wrong, where, and what to do."""

import json
import os
import textwrap

import pytest
import torch
from paths import QUICK
from paths import QUICK_FIT as FIT

from rnnx_lightning import __main__

NETWORK = "--model.network.init_args."
COMMAND_LINE = {
    # name: (arguments, words that the message must have)
    "unknown command": (["fitt"], ["'fitt'", "Did you mean fit"]),
    "misspelt trainer option": ([*FIT, "--trainer.max_epoch=3"], ["trainer.max_epoch", "trainer.max_epochs"]),
    "misspelt data option": ([*FIT, "--data.batchsize=3"], ["data.batchsize", "data.batch_size"]),
    "misspelt model option": ([*FIT, "--model.clases=3"], ["clases", "model.classes"]),
    "misspelt network option": ([*FIT, f"{NETWORK}dropot=0.1"], ["dropot"]),
    "option of before": ([*FIT, "--data.fresh=false"], ["data.fresh"]),
    "no network": (["fit"], ["there is no network: --config NAME", "--model.network NAME"]),
    "a config without its option": (["fit", "quick"], ["Did you mean --config quick?"]),
    "methods without names": (["explain", "--methods=LRP"], ["methods", "--methods.NAME VALUE"]),
    "seeds that are no list": (["compare", "--config=compare/quick", "--seeds=0"], ["seeds", "a list, such as '[0, 1]'"]),
    "study of nothing": (["compare"], ["missing: --name, --networks"]),
    "no name for what is explained": (["explain", "--pretrained=rlstm", "--out=there/"], ["'there/' is no name for a file"]),
    "a study for one run": (["fit", "--config=compare/quick"], ["is a study: rnnx compare --config"]),
    "one run for a study": (["compare", "--config=convdeep"], ["with model is of one run: rnnx fit --config"]),
    "unknown option": ([*FIT, "--zzz=3"], ["zzz"]),
    "learning rate as it was called": (
        [*FIT, "--model.learning_rate=1e-3"], ["model.learning_rate is now --optimizer.lr"],
    ),
    "schedule as it was called": ([*FIT, "--model.schedule", "one_cycle"], ["model.schedule is now --lr_scheduler"]),
    "cosines as they were called": (
        [*FIT, "--trainer.callbacks=CosineSimilarity"], ["CosineSimilarity is now part of Explainability"],
    ),
    "heatmaps as they were called": (
        [*FIT, "--trainer.callbacks+=rnnx_lightning.callbacks.Heatmaps"], ["Heatmaps is now part of Explainability"],
    ),
    "word for a number": ([*FIT, "--data.batch_size=many"], ["data.batch_size", "many"]),
    "fraction for a whole number": ([*FIT, "--data.batch_size=2.5"], ["data.batch_size", "2.5"]),
    "word for a learning rate": ([*FIT, "--optimizer.lr=fast"], ["optimizer", "lr", "fast"]),
    "no such sampling": ([*FIT, "--data.sampling=perhaps"], ["data.sampling", "perhaps", "pooled", "published"]),
    "no such config": (["fit", "--config", "nowhere.yaml"], ["nowhere.yaml"]),
    "config is a folder": (["fit", "--config", "."], ["config", "is not a file"]),
    "no such network": ([*FIT, "--model.network=DeepDeep"], ["DeepDeep"]),
    "no such module": ([*FIT, "--model.network=no_such_module.Network"], ["no_such_module"]),
    "network is no module": ([*FIT, "--model.network=datetime.datetime"], ["datetime"]),
    "no such callback": ([*FIT, "--trainer.callbacks=Explainabilty"], ["Explainabilty. Did you mean Explainability?"]),
    "unknown data set": ([*FIT, "--data.dataset=cifar"], ["cifar", "fashion_mnist"]),
    "unknown schedule": ([*FIT, "--lr_scheduler=cosine"], ["lr_scheduler", "cosine"]),
    "batch of none": ([*FIT, "--data.batch_size=0"], ["batch_size=0"]),
    "negative batch": ([*FIT, "--data.batch_size=-5"], ["batch_size=-5"]),
    "batch larger than the data": ([*FIT, "--data.batch_size=100000"], ["batch_size=100000", "smaller"]),
    "learning rate 0": ([*FIT, "--optimizer.lr=0"], ["optimizer.lr=0", "positive"]),
    "negative learning rate": ([*FIT, "--optimizer.lr=-1"], ["optimizer.lr=-1", "positive"]),
    "infinite learning rate": ([*FIT, "--optimizer.lr=.inf"], ["optimizer.lr=inf"]),
    "learning rate is no number": ([*FIT, "--optimizer.lr=.nan"], ["optimizer.lr=nan"]),
    "dropout of all": ([*FIT, f"{NETWORK}dropout=1.0"], ["dropout=1.0", "below 1"]),
    "negative dropout": ([*FIT, f"{NETWORK}dropout=-0.1"], ["dropout=-0.1"]),
    "a layer of no units": ([*FIT, f"{NETWORK}features=0"], ["features=0 must be at least 1"]),
    "a layer of less than no units": ([*FIT, f"{NETWORK}hidden=-3"], ["hidden=-3 must be at least 1"]),
    "columns that do not divide": ([*FIT, "--data.columns=5"], ["columns=5", "28"]),
    "no columns": ([*FIT, "--data.columns=0"], ["columns=0"]),
    "no sample": ([*FIT, "--data.samples=0"], ["samples=0"]),
    "majority larger than the sequence": ([*FIT, "--data.majority_size=4"], ["majority_size=4", "samples=3"]),
    "no majority": ([*FIT, "--data.majority_size=0"], ["majority_size=0"]),
    "majority that cannot be one": ([*FIT, "--data.samples=40"], ["samples=40", "raise majority_size"]),
    "majority larger than a class": (
        [*FIT, "--data.samples=2000", "--data.majority_size=1999"], ["majority_size=1999"],
    ),
    "validation share 0": ([*FIT, "--data.validation_share=0"], ["validation_share=0"]),
    "validation share 1": ([*FIT, "--data.validation_share=1.0"], ["validation_share=1.0"]),
    "validation share that leaves nothing": ([*FIT, "--data.validation_share=0.999"], ["validation_share", "0.999"]),
    "one fold": ([*FIT, "--data.folds=1"], ["folds=1"]),
    "fold outside": ([*FIT, "--data.folds=5", "--data.fold=5"], ["fold=5", "4"]),
    "negative fold": ([*FIT, "--data.folds=5", "--data.fold=-1"], ["fold=-1"]),
    "negative seed": ([*FIT, "--seed_everything=-1"], ["seed"]),
    "too few classes": ([*FIT, "--model.classes=5"], ["classes=5", "10"]),
    "network without logits": (
        [*FIT, "--model.network=torch.nn.Linear", f"{NETWORK}in_features=84", f"{NETWORK}out_features=10"],
        ["Linear", "28, 10)", "(batch, classes)"],
    ),
    "one cycle without end": ([*FIT, "--trainer.max_epochs=-1"], ["OneCycle", "max_epochs=-1", "constant"]),
    "no such optimizer": ([*FIT, "--optimizer=Adamm"], ["optimizer", "Adamm. Did you mean Adam?"]),
    "no optimizer": ([*FIT, "--optimizer=null"], ["optimizer"]),
    "misspelt optimizer option": ([*FIT, "--optimizer.momentun=0.9"], ["momentun"]),
    "schedule that lacks a number": ([*FIT, "--lr_scheduler=StepLR"], ["step_size"]),
    "schedule that follows nothing": (
        [*FIT, "--lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"], ["has no option for what", "monitor val/loss"],
    ),
    "optimizer option out of range": ([*FIT, "--optimizer.eps=-1"], ["eps", "-1"]),
    "fit from the best of no run": ([*FIT, "--ckpt_path=best"], ["no best checkpoint in"]),
    "last without logger or run": (
        [*FIT, "--trainer.logger=false", "--ckpt_path=last"], ["no last checkpoint in logs/quick", "give the path"],
    ),
    "last of loggers without run": (
        [*FIT, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=a", "--ckpt_path=last"],
        ["no last checkpoint in a/lightning_logs"],
    ),
    "link to the last checkpoint": ([*FIT, "--checkpoint.save_last=link"], ["save_last", "link"]),
    "no sequence to explain": (
        [*FIT, "--trainer.callbacks=Explainability", "--trainer.callbacks.sequences=0"], ["sequences=0"],
    ),
    "fewer pictures than none": (
        [*FIT, "--trainer.callbacks=Explainability", "--trainer.callbacks.pictures=-1"], ["pictures=-1"],
    ),
    "score that asks for what is not known": (
        [*FIT, "--trainer.callbacks=Explainability", "--trainer.callbacks.scores.mine=MeanMetric"],
        ["score 'mine'", "needs value", "relevance, majority"],
    ),
    "GPU that is not there": ([*FIT, "--trainer.accelerator=gpu"], ["accelerator=gpu", "Without a GPU"]),
    "more devices than cores": ([*FIT, "--trainer.accelerator=cpu", "--trainer.devices=500"], ["devices=500"]),
    "devices that are a word": ([*FIT, "--trainer.devices=some"], ["some"]),
    "unknown accelerator": ([*FIT, "--trainer.accelerator=abacus"], ["abacus"]),
    "unknown precision": ([*FIT, "--trainer.precision=7"], ["7"]),
    "monitor that does not exist": ([*FIT, "--checkpoint.monitor=val/beauty"], ["val/beauty"]),
    "no such checkpoint": (["test", "--config", QUICK, "--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt"]),
    "no last checkpoint": ([*FIT, "--ckpt_path=last"], ["no last checkpoint", "quick"]),
    "explain without checkpoint": (["explain"], ["ckpt_path"]),
    "explain nothing": (["explain", "--ckpt_path=nowhere.ckpt"], ["nowhere.ckpt"]),
    "explain a word": (["explain", "--ckpt_path=a.ckpt", "--index=first"], ["first"]),
    "explain by an unknown method": (["explain", "--ckpt_path=a.ckpt", "--methods.A=LRPP"], ["methods", "LRPP. Did you mean LRP?"]),
    "explain by a negative epsilon": (
        ["explain", "--pretrained=rlstm-digits", "--methods.A=LRP", "--methods.A.rules=Epsilon", "--methods.A.rules.epsilon=-1"],
        ["epsilon=-1.0 must be at least 0 and finite"],
    ),
    "explain by what is no score": (["explain", "--ckpt_path=a.ckpt", "--scores.A=Linear"], ["scores", "Linear"]),
    "score that is none": (
        [*FIT, "--trainer.callbacks=Explainability", "--trainer.callbacks.scores.mine=Linear"], ["mine", "Linear"],
    ),
    "study without networks": (["compare", "--name=empty"], ["networks"]),
    "study with a bad name": (["compare", "--name=../up", '--networks={"A": []}'], ["../up"]),
    "study of a missing config": (["compare", "--name=s", '--networks={"A": ["gone.yaml"]}'], ["gone.yaml"]),
    "study with one fold": (["compare", "--name=s", f'--networks={{"A": ["{QUICK}"]}}', "--folds=1"], ["folds=1"]),
    "study with no jobs": (["compare", "--name=s", f'--networks={{"A": ["{QUICK}"]}}', "--jobs=0"], ["jobs=0"]),
    "study with a misspelt option": (
        ["compare", "--name=s", f'--networks={{"A": ["{QUICK}"]}}', "--datasets=[digits]", '--options=["--data.batchsize=9"]'],
        ["--data.batchsize: Did you mean --data.batch_size?", "quick.yaml"],
    ),
    "study on an unknown data set": (
        ["compare", "--name=s", f'--networks={{"A": ["{QUICK}"]}}', "--datasets=[cifar]"], ["cifar"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMAND_LINE)
def test_command_line(name, say, tmp_path):
    arguments, words = COMMAND_LINE[name]
    said = say(arguments)
    for word in words:
        assert word in said, said
    assert len(said.splitlines()) <= 16, said
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix in (".ckpt", ".part", ".json")]
    assert not left
    assert not (tmp_path / "logs" / "compare").exists()


def test_a_network_of_the_users_own_that_fails_is_told_by_its_line(say, tmp_path):
    network = """
        from torch import nn

        class Narrow(nn.Module):
            def __init__(self, classes: int = 10):
                super().__init__()
                self.map = nn.Linear(5, classes)

            def forward(self, image):
                return self.map(image.flatten(1))
    """
    (tmp_path / "narrow.py").write_text(textwrap.dedent(network))
    said = say(["fit", "--data.dataset=digits", "--model.network=narrow.Narrow"])
    assert "in narrow.py, line 10: return self.map(image.flatten(1))" in said
    assert "2352" in said


def test_no_line_is_told_where_none_is_the_users(say):
    assert ", line " not in say([*FIT, "--data.batch_size=100000"])


CONFIGS = {
    "misspelt key": ("data:\n  dataset: digits\n  batchsize: 5\n", ["batchsize", "batch_size"]),
    "misspelt section": ("dta:\n  dataset: digits\n", ["dta", "data"]),
    "as it was before": ("model:\n  learning_rate: 0.001\n", ["model.learning_rate is now --optimizer.lr"]),
    "callbacks as they were before": (
        "trainer:\n  callbacks:\n  - class_path: Heatmaps\n    init_args:\n      pictures: 3\n",
        ["Heatmaps is now part of Explainability"],
    ),
    "no YAML": ("data: [digits\n", ["broken.yaml", "did not find expected"]),
    "a list": ("- data\n", ["broken.yaml"]),
    "wrong type": ("data:\n  dataset: digits\n  samples: three\n", ["samples", "three"]),
    "code in YAML": ("data: !!python/object/apply:os.system ['touch owned']\n", ["yaml"]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_config_files(name, say, tmp_path):
    text, words = CONFIGS[name]
    (tmp_path / "broken.yaml").write_text(text)
    said = say([*FIT, "--config", "broken.yaml"])
    for word in words:
        assert word.lower() in said.lower(), said
    assert not (tmp_path / "owned").exists()


CHECKPOINTS = {
    "empty": (lambda path: path.write_bytes(b""), ["damaged"]),
    "text": (lambda path: path.write_text("weights"), ["damaged"]),
    "no weights": (lambda path: torch.save({"epoch": 1}, path), ["no state_dict"]),
    "a tensor": (lambda path: torch.save(torch.ones(2), path), ["no state_dict"]),
    "code": (lambda path: torch.save({"state_dict": print}, path), ["never loaded"]),
    "no network": (lambda path: torch.save({"state_dict": {}, "hyper_parameters": {}}, path), ["which network"]),
    "a folder": (lambda path: path.mkdir(), ["no checkpoint"]),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_cannot_be_explained(name, say, tmp_path):
    make, words = CHECKPOINTS[name]
    make(tmp_path / "bad.ckpt")
    said = say(["explain", "--ckpt_path=bad.ckpt"])
    for word in ("bad.ckpt", *words):
        assert word in said
    assert not (tmp_path / "explanation.png").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of Deep on the digits."""
    folder = tmp_path_factory.mktemp("trained")
    before = os.getcwd()
    os.chdir(folder)
    try:
        __main__.main([*FIT, "--model.network=Deep"])
    finally:
        os.chdir(before)
    return next(folder.rglob("best.ckpt"))


def test_checkpoint_of_another_network(trained, say):
    said = say(["test", "--config", QUICK, f"--ckpt_path={trained}"])
    for word in ("another network", "Deep", "ConvDeep"):
        assert word in said


def test_fewer_epochs_than_there_were(trained, say, tmp_path):
    last = trained.with_name("last.ckpt")
    said = say([*FIT, "--model.network=Deep", f"--ckpt_path={last}", "--trainer.max_epochs=0"])
    for word in ("was trained for 1 epochs", "trainer.max_epochs=0", "to more than 1"):
        assert word in said
    assert not list(tmp_path.rglob("config*.yaml"))


def test_checkpoint_of_other_sizes(trained, say, tmp_path):
    checkpoint = torch.load(trained, weights_only=True)
    checkpoint["hyper_parameters"]["network"]["init_args"]["hidden"] = 7
    torch.save(checkpoint, tmp_path / "other.ckpt")
    assert "do not fit the network" in say(["explain", "--ckpt_path=other.ckpt"])


def other_version(checkpoint, kind):
    network = checkpoint["hyper_parameters"]["network"]
    if kind == "a network that is gone":
        network["class_path"] = "rnnx_lightning.architectures.Gone"
    elif kind == "an argument that is gone":
        network["init_args"]["gone"] = 3
    else:
        del checkpoint["pytorch-lightning_version"]


@pytest.mark.parametrize("kind", ["a network that is gone", "an argument that is gone", "no version"])
def test_checkpoint_of_another_version(kind, trained, say, tmp_path):
    checkpoint = torch.load(trained, weights_only=True)
    other_version(checkpoint, kind)
    torch.save(checkpoint, tmp_path / "other.ckpt")
    said = say(["explain", "--ckpt_path=other.ckpt"])
    for word in ("other.ckpt", "version"):
        assert word in said
    if kind == "no version":
        assert "other.ckpt" in say(["test", "--config", QUICK, "--model.network=Deep", "--ckpt_path=other.ckpt"])


EXPLAIN = {
    "sequence that is not there": (["--index=99999"], ["99999", "0 to 359"]),
    "negative sequence": (["--index=-1"], ["-1"]),
    "picture that is not there": (["--image", "a.png"], ["a.png"]),
    "picture that is none": (["--image", "text.png"], ["text.png", "cannot be read as a picture"]),
    "picture of another size": (["--image", "large.png"], ["large.png", "30 x 28", "28 x 28"]),
    "both": (["--image", "large.png", "--index=1"], ["--image", "--index", "not both"]),
}


@pytest.mark.parametrize("name", EXPLAIN)
def test_what_cannot_be_explained(name, trained, say, tmp_path):
    from PIL import Image

    (tmp_path / "text.png").write_text("no picture at all")
    Image.new("L", (30, 28)).save(tmp_path / "large.png")
    arguments, words = EXPLAIN[name]
    said = say(["explain", f"--ckpt_path={trained}", *arguments])
    for word in words:
        assert word in said
    assert not (tmp_path / "explanation.json").exists()


def test_a_network_that_cannot_be_explained(say, tmp_path, monkeypatch):
    (tmp_path / "products.py").write_text(
        "from torch import nn\n\n"
        "class Products(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.front, self.out = nn.LazyLinear(16), nn.Linear(16, 10)\n"
        "    def forward(self, x):\n"
        "        hidden = self.front(x.flatten(1))\n"
        "        return self.out(hidden * hidden.flip(1))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = json.dumps({"class_path": "products.Products"})
    said = say(["fit", "--data.dataset=digits", "--trainer.max_epochs=1", f"--model.network={config}"])
    for word in ("mul.Tensor", "multiplies two signals", 'products="half"', "--trainer.callbacks null"):
        assert word in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must map options to values, but one is empty"),
        (b"- a", "must map options to values, but one is '- a'"),
        (b"\xff\xfe\x00", "it is not text in UTF-8"),
    ],
)
def test_a_config_that_is_none(content, words, say, tmp_path):
    (tmp_path / "some.yaml").write_bytes(content)
    said = say(["fit", "--config=some.yaml"])
    assert words in said
    assert "some.yaml" in said


def test_a_folder_that_cannot_be_written(say, tmp_path):
    (tmp_path / "logs").write_text("a file where the runs' folder should be")
    assert "logs" in say(FIT)
