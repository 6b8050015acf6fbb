"""Every script: command lines, damaged and wrong files that get one line, with nothing written and no code run."""

import pytest

from preprocess import (
    build_annotations,
    build_splits,
    cache_features,
    make_demo_data,
    prepare_artemis,
    resize_wikiart,
    train_text2emotion,
)
from tests.bad_input import (
    ARTEMIS,
    ARTEMIS_CSV,
    HISTOGRAM_CSV,
    RELEASE_CSV,
    RELEASE_HEADER,
    TEXTS,
    TOKENS,
    TRAIN,
    VAL,
    VOTES,
    appended,
    check_accepted,
    check_refused,
    content,
    removed,
    replaced,
)

GOOD = {
    prepare_artemis: f"--release_csv {RELEASE_CSV} --out_dir out --jobs 1",
    build_splits: "--artemis_dir artemis --out_dir out",
    build_annotations: f"--out_dir out {VAL}",
    cache_features: f"{TRAIN} --image_root data/images --out_dir out --clip_model vit --from_scratch --num_workers 0",
    resize_wikiart: "--wikiart_dir data/images --out_dir out --jobs 1",
    train_text2emotion: f"--data_dir {ARTEMIS} --sizes 4 4 4 4 --epochs 1 --batch_size 2 --device cpu --out out/a.safetensors",
    make_demo_data: "--out_dir out --images 30",
}


@pytest.mark.parametrize("script", list(GOOD)[:-1])
def test_good_files_are_accepted(box, script):
    check_accepted(box, script.main, GOOD[script])


# ---- command lines ---------------------------------------------------------------------------------------------------

# what follows the good flags, and wins over them -> message
FLAGS = {
    prepare_artemis: {
        "--release_csv gone.csv": "gone.csv: no such file; give ArtEmis' release as it was downloaded",
        f"--contrastive_csv {RELEASE_CSV}": f"{RELEASE_CSV}: has no column anchor_painting",
    },
    build_splits: {
        "--image_root gone": "gone: no such image folder",
        "--dataset v2": f"{ARTEMIS_CSV}: has no column version",
        "--require_images": "--require_images needs --image_root",
        "--seed 1": "--seed is for --dataset table",
        "--artemis_dir gone": "gone/preprocess_data_mini/.*: no such file; make the folder with preprocess/prepare_artemis",
    },
    build_annotations: {"other/artEmisX_val.json": "two splits of the same file name.*--out_dir"},
    cache_features: {
        "--image_root gone": "--image_root gone: no such folder",
        "--clip_model gone": "--clip_model gone: no such folder",
    },
    resize_wikiart: {
        "--wikiart_dir gone": "gone: no such image folder; give the one",
        "--require_images": "--require_images needs --release_csv",
        "--wikiart_dir artemis": "artemis: contains none of the images; give",
        "--out_dir data/images": "originals would be overwritten; give another",
        "--quality 50": "--quality: 50 is not between 90 and 100",
        "--manifest data": "data: is a folder",
    },
    train_text2emotion: {
        "--data_dir gone": "gone/vocabulary.pkl: no such file",
        "--out out/a.pt": "--out .*ends in .safetensors",
        "--batch_size 1": "--batch_size: 1 is not between 2",
        "--learning_rate nan": "--learning_rate: nan is not between",
        "--device abacus": "--device abacus: torch has no such device",
        "--out vit/config.json/a.safetensors": "vit/config.json is not a folder",
    },
    make_demo_data: {
        "--images 29": "--images: 29 is not between 30",
        "--out_dir data": "data: not empty .*name another --out_dir",
    },
}
FLAG_CASES = [(script, *case) for script, cases in FLAGS.items() for case in cases.items()]
FLAG_CASES += [
    (script, "--out_dir vit/config.json", "vit/config.json") for script in GOOD if script != train_text2emotion
]


@pytest.mark.parametrize(("script", "flags", "message"), FLAG_CASES)
def test_flags(box, script, flags, message):
    check_refused(box, script.main, f"{GOOD[script]} {flags}", message)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--out_dir out", "pass --artemis_dir, or both"),
        ("--mini_dir artemis/preprocess_data_mini --out_dir out", "pass --artemis_dir, or both"),
        ("--dataset table --out_dir out", "give the table as --csv FILE"),
        ("", "the following arguments are required: --out_dir"),
    ],
)
def test_missing_flags_of_build_splits(box, argv, message):
    check_refused(box, build_splits.main, argv, message)


# ---- files -----------------------------------------------------------------------------------------------------------


def release(rows, more=""):
    """A release of these rows, with more columns."""
    return content(
        RELEASE_CSV, RELEASE_HEADER.replace("\n", more + "\n") + "".join(f"{row}\n" for row in rows.split("|"))
    )


def annotations(old, new, times=1):
    return replaced(ARTEMIS_CSV, old, new, times)


def votes(new):
    return replaced(HISTOGRAM_CSV, VOTES, new)


def one_artwork_in_two_spellings(*splits):
    """The same é as one character and as two."""

    def change(box):
        for name, split in zip(("caf\u00e9", "cafe\u0301"), splits, strict=True):
            box.append(ARTEMIS_CSV, f"Baroque,{name},awe,{TEXTS[0]},6,{split},[],1")
        box.append(HISTOGRAM_CSV, 'Baroque,caf\u00e9,"[1,0,0,0,0,0,0,0,0]"')

    return change


FROM_ARTEMIS = "make the folder with preprocess/prepare_artemis.py"
NO_VOTES = f"{HISTOGRAM_CSV}: row 1 .Baroque/train0.: .*9 vote counts; {FROM_ARTEMIS}"
VOCABULARY = f"{ARTEMIS}/vocabulary.pkl"
NO_TOKENS = f"{ARTEMIS_CSV}: line 2: tokens_encoded is not a list.* vocabulary's 112 words"
V2_ROWS = RELEASE_HEADER.replace("\n", ",anchor_painting,split\n") + "Rococo,p,awe,text,5,p0,train\n"
IMAGE = "data/images/Baroque/p1.jpg"

# script -> [(change, message, flags)]
FILES = {
    prepare_artemis: [
        (content(RELEASE_CSV, "a,b\n1,2\n"), "has no column .*give ArtEmis' release as it was downloaded"),
        (release("Baroque,p,joy,text,1"), f"{RELEASE_CSV}: row 1: unknown emotion 'joy' .known: amusement"),
        (release("Baroque,p,awe,text,1.5"), f"{RELEASE_CSV}: row 1: repetition '1.5' is not an integer"),
        (release("Baroque,p,awe,text,1,[]", ",tokens"), f"{RELEASE_CSV}: has a column tokens"),
        (release("Baroque,a,awe,text,1,dev", ",split"), f"{RELEASE_CSV}: unknown split 'dev'"),
        (release("Baroque,a,awe,text,1,val", ",split"), f"{RELEASE_CSV}: no row has the split train"),
        (release("B,a,awe,t,1,val|B,a,awe,t,1,train", ",split"), f"{RELEASE_CSV}: B/a is in several splits"),
        (release("B,a,awe,too short a text,1,train", ",split"), "no training text has between 5 tokens"),
        (release("B,a,awe,text,1|B,b,awe,text,1"), "2 artworks are too few to be split"),
        (content("s.json", '{"teh": 3}'), "the right spelling of 'teh' must be a text", "--spelling s.json"),
        (content("s.json", "[]"), "not a JSON object", "--spelling s.json"),
        (content("s.py", "a = {1: open('canary', 'w')}"), "not Python code whose dictionaries", "--spelling s.py"),
        (content("s.py", "x = 3"), "contains no dictionary", "--spelling s.py"),
        (content("w.txt", b"caf\xe9 1\n"), "not UTF-8 text", "--known_words w.txt"),
        (content("w.txt", "\n\n"), "contains no words", "--known_words w.txt"),
        (content("new.csv", V2_ROWS), "one of the two files has a column split", "--contrastive_csv new.csv"),
    ],
    build_splits: [
        (annotations("utterance_spelled", "text"), f"{ARTEMIS_CSV}: has no column utterance_spelled.*{FROM_ARTEMIS}"),
        (annotations("emotion_label", "version"), f"{ARTEMIS_CSV}: has a column version.*--dataset v2"),
        (annotations(",val,", ",dev,"), f"{ARTEMIS_CSV}: unknown split 'dev' .known: rest, test"),
        (annotations(",val,", ",train,"), f"{ARTEMIS_CSV}: Baroque/val0.jpg is in two splits, train and val"),
        (annotations(",test,", ",val,"), "Baroque/test0.jpg is in two splits, val and test"),
        (one_artwork_in_two_spellings("train", "val"), "Baroque/.* is in two splits, train and val"),
        (one_artwork_in_two_spellings("train", "train"), "Baroque/.* occurs in two Unicode spellings"),
        (annotations(",fear,", ",Fear,"), f"{ARTEMIS_CSV}: row 2: unknown emotion 'Fear'"),
        (annotations(",6,", ",5.5,"), f"{ARTEMIS_CSV}: row 1: repetition '5.5' is not an integer"),
        (appended(ARTEMIS_CSV, f"Baroque,new,awe,{TEXTS[0]},6,train,[],1"), "Baroque/new has no histogram; take both"),
        (annotations(",fear,", ",awe,", -1), "no training images with annotations of two emotions"),
        (annotations(",test,", ",val,", -1), "no artworks for artEmisX_test"),
        (appended(HISTOGRAM_CSV, f'Baroque,val0,"{VOTES}"'), "row 7 .Baroque/val0.: the artwork occurs twice"),
        (votes("[1, 1, 0, 0, 0, 0, 0, 0]"), NO_VOTES),
        (votes("[-1, 3, 0, 0, 0, 0, 0, 0, 0]"), NO_VOTES),
        (votes("[NaN, 1, 0, 0, 0, 0, 0, 0, 0]"), NO_VOTES),
        (votes("__import__('os').system('echo harm > canary')"), NO_VOTES),
    ],
    build_annotations: [
        (content(VAL, "{}"), f"{VAL}: holds no records"),
    ],
    cache_features: [
        (removed(TRAIN), f"{TRAIN}: no such file"),
        (removed(IMAGE), "no image Baroque/p1.jpg; build the splits with --image_root"),
        (content(IMAGE, "no image"), "p1.jpg: unreadable image"),
    ],
    resize_wikiart: [
        # a name that leads out of the folder is not written
        (release("../..,p,awe,t,1"), "contains none of the", f"--release_csv {RELEASE_CSV}"),
    ],
    train_text2emotion: [
        (lambda box: box.bomb(VOCABULARY), "vocabulary.pkl: .*unsafe .its pickle names (os|posix).system"),
        (removed(ARTEMIS_CSV), f"{ARTEMIS_CSV}: no such file; make it with preprocess/prepare_artemis"),
        (annotations(",test,", ",val,", -1), f"{ARTEMIS_CSV}: has no rows of split 'test'"),
        (annotations(TOKENS, "1 4 2"), NO_TOKENS),
        (annotations("[1, 4,", "[1, 4.5,"), NO_TOKENS),
        (annotations("[1, 4,", "[4, 4,"), NO_TOKENS),
        (annotations("111, 2]", "2, 111]"), NO_TOKENS),
        (annotations("[1, 4,", "[1, 112,"), NO_TOKENS),
        (annotations('",1\n', '",9\n'), f"{ARTEMIS_CSV}: line 2: emotion_label 9"),
        (content("g.txt", "the high low\n"), "not a GloVe text file", "--glove g.txt"),
        (content("g.txt", "the nan 1\n"), "not a GloVe text file", "--glove g.txt"),
        (content("g.txt", "zzz 1 2\n"), "contains no word of the vocabulary", "--glove g.txt"),
    ],
}


FILE_CASES = [(script, *case) for script, cases in FILES.items() for case in cases]


@pytest.mark.parametrize(
    ("script", "change", "message", "flags"), [case if len(case) == 4 else (*case, "") for case in FILE_CASES]
)
def test_files(box, script, change, message, flags):
    change(box)
    check_refused(box, script.main, f"{GOOD[script]} {flags}", message)
