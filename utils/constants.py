"""Names and numbers that several parts of SEVLM share. No torch here."""

# ArtEmis' nine emotions. Their index in this tuple is the label everywhere: histograms, distributions, heads.
EMOTIONS = (
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
    "something else",
)
EMOTION_INDEX = {emotion: index for index, emotion in enumerate(EMOTIONS)}

# Tokens added to GPT-2's vocabulary, in the order of their ids 50257 .. 50260.
PAD, PREFIX, EMOTION, EXPLANATION = "<pad>", "<prefix>", "<emotion>", "<explanation>"
ADDED_TOKENS = (PAD, PREFIX, EMOTION, EXPLANATION)
BOS = EOS = "<|endoftext|>"
IGNORED_LABEL = -100

PROMPT_TEXT = " the emotion is"
BECAUSE = "because"  # between emotion and explanation

# ArtEmis' punctuation: each of these becomes a space before a text is split into words.
PUNCTUATION = r".?!,:;/\-~*_=[–]{}$^@|%#<—>"
# Artworks with more annotations than this are ArtEmis' split "rest".
MOST_ANNOTATIONS = 40

# How a token becomes the word that is looked up in the VAD lexicon.
LEMMATIZERS = ("nltk", "simplemma", "none")

# bos, the prompt's three tokens and at most two of the emotion: the published code takes these positions for the emotion
# of any text. Another prompt has another span: see TextCodec.emotion_span.
EMOTION_SPAN = 6

MAX_NEW_TOKENS = 25

# The paper normalises CLIP's input with ImageNet's statistics; `--image_normalization own` takes CLIP's.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NORMALIZATIONS = ("imagenet", "own")

# Where images and lexicon are looked for, beside the JSON files and one folder up, when no flag names them.
IMAGE_FOLDERS = ("wikiart_rescaled_max_size_to_600px_same_aspect_ratio", "images")
LEXICON_FILES = ("NRC-VAD-Lexicon.txt", "NRC-VAD-Lexicon-v2.1.txt")

# COCO-caption's; SPICE needs a download.
METRICS = ("bleu", "meteor", "rouge", "cider", "spice")
DEFAULT_METRICS = METRICS[:4]
METEOR_GIB = 0.5  # memory of one of its Java processes; measured after an evaluation: 0.45 GiB

# Names of test sets: ArtEmis v1.0's; v2.0's (see preprocess/artemis_files.py; papers' "v2.0" is test_all); Affection's.
TEST_SETS = ("v1.0", "test_all", "test_new", "test_ref", "test_old", "test_40", "affection")

EXPORT_TYPE = "sevlm"  # model_type in the config.json of an exported model (utils/share.py)

# Beyond the paper: what decides on a caption's emotion, and what the 9-way emotion head reads of an image.
EMOTION_FROM = ("text", "likelihood", "head")
EMOTION_POOLINGS = ("cls", "mean", "prototypes")

# Which of several samples becomes the caption, and the CLIP model that compares them with the image.
RERANKERS = ("clip", "likelihood")
RERANK_MODEL = "openai/clip-vit-base-patch32"
