"""BERT: 15% of a text's pieces are to be told from the others, most of them hidden, some wrong, some as they are.

Paper    J. Devlin, M.-W. Chang, K. Lee, K. Toutanova. BERT: pre-training of deep bidirectional transformers for
         language understanding. NAACL 2019. Section 3.1 and appendix A.
Keeps    15% scored; of these 80% get a learned token, 10% a random piece, 10% stay; a transformer over all places,
         layer normalisation after each branch, learned positions; a dense layer and the product with the embedding,
         over the whole vocabulary.
Differs  masked pieces alone, no next sentence; byte-pair pieces of the training text, where the paper has WordPiece;
         shares are exact in each window (floor or ceiling), where the paper tosses a coin for each piece; positions
         start at sines.
Tiny     400 pieces (letters and short syllables), windows of 64, 4 layers of 64 in which a piece sees the 4 on either
         side of it, normalised before each branch: with all of the window to look at, and after, a minute's training
         does not get past how common pieces are.
Command  structmae pretrain --data pydoc-topics --recipe bert
Score    `python benchmarks/run.py systems --only bert`; see benchmarks/README.md
"""

from structmae.recipe import EncoderOptions, HeadOptions, MaskOptions, Recipe, TokenOptions, TrainOptions

RECIPE = Recipe(
    name="bert",
    summary="hide 15% of a text's pieces (80% a token, 10% random, 10% kept), predict them from both sides",
    paper="Devlin et al., BERT: pre-training of deep bidirectional transformers, NAACL 2019",
    modality="text",
    default_data="pydoc-topics",
    tokens=TokenOptions(vocabulary=30_000, context=512),
    mask=MaskOptions(ratio=0.15, act="token", random=0.1, keep=0.1, random_from="vocabulary"),
    encoder=EncoderOptions(
        layers=12,
        hidden=768,
        heads=12,
        feed_forward=3072,
        dropout=0.1,
        attention_dropout=0.1,
        activation="gelu",
        norm="layernorm",
    ),
    heads={"pieces": HeadOptions(of="piece", target="ids", layers=0, tied=True, remask="none", loss="ce")},
    train=TrainOptions(epochs=40, batch_size=256, lr=1e-4, weight_decay=0.0, warmup=1),
    sizes={
        "tiny": {
            "tokens.vocabulary": 400,
            "tokens.context": 64,
            "encoder.layers": 4,
            "encoder.hidden": 64,
            "encoder.heads": 4,
            "encoder.feed_forward": 256,
            "encoder.attention": "window",
            "encoder.window": 4,
            "encoder.prenorm": True,
            "encoder.dropout": 0.0,
            "encoder.attention_dropout": 0.0,
            "train.epochs": 10,
            "train.batch_size": 16,
            "train.lr": 5e-3,
            "train.warmup": 1,
        }
    },
)
