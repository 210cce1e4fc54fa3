"""Vector quantisation: nearest codes, gradients straight through, a codebook that follows."""

import pytest
import torch
from tests.models.conftest import SMALL

from chartae import fit
from chartae.errors import ConfigurationError, DataError
from chartae.models import HRQVAE, VQVAE


def build(model_class=VQVAE, latent_dim=12, **options):
    torch.manual_seed(0)
    arguments = {"encoder": SMALL, "decoder": SMALL, "num_codes": 16, "grid": (2, 2), **options}
    return model_class((8, 8), latent_dim, **arguments)


def codebook(model, level=0):
    return model.quantizer.layers[level].codebook


@pytest.mark.parametrize("model_class", [VQVAE, HRQVAE])
@pytest.mark.parametrize(
    ("latent_dim", "grid"),
    [(1, (1, 1)), (7, (1, 1)), (8, (2, 2)), (9, (3, 3)), (16, (4, 4)), (36, (3, 3)), (64, (4, 4))],
)
def test_the_default_grid_divides_any_latent(model_class, latent_dim, grid):
    model = model_class((8, 8), latent_dim, encoder=SMALL, decoder=SMALL)
    assert model.grid == model.config()["grid"] == grid
    assert model.encode(torch.rand(3, 8, 8)).shape == (3, latent_dim)


def test_each_place_gets_its_nearest_code(digits):
    model = build().eval()
    vectors = model.continuous(digits)
    assert vectors.shape == (64, 4, 3)
    expected = torch.cdist(vectors.flatten(0, 1), codebook(model)).argmin(1).reshape(64, 2, 2)
    codes = model.codes(digits)
    assert (codes == expected).all()
    # A latent is the codes side by side, channels first.
    chosen = codebook(model)[codes]
    torch.testing.assert_close(
        model.encode(digits).reshape(64, 3, 2, 2), chosen.permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(model.embed_codes(codes), model.encode(digits))


def test_gradients_go_straight_through(digits):
    model = build().double().eval()
    x = digits.double()
    captured = {}

    def capture(_, inputs, output):
        output.retain_grad()
        captured["vectors"] = output

    model.code_head.register_forward_hook(capture)
    model.decoder.register_forward_pre_hook(lambda _, inputs: captured.update(latent=inputs[0]))
    losses = model.loss(x)
    (at_latent,) = torch.autograd.grad(
        losses.terms["reconstruction"], captured["latent"], retain_graph=True
    )
    (at_vectors,) = torch.autograd.grad(
        losses.terms["reconstruction"], captured["vectors"], retain_graph=True
    )
    assert at_latent.any()
    torch.testing.assert_close(at_vectors, at_latent)
    # And the commitment draws the vectors to their codes: 2 (z_e - z_q) / batch.
    (pull,) = torch.autograd.grad(losses.terms["commitment"], captured["vectors"])
    torch.testing.assert_close(pull, 2 * (captured["vectors"] - model.encode(x)) / 64)
    torch.testing.assert_close(captured["latent"], model.encode(x))


def test_the_codebook_follows_in_training_alone(digits):
    model = build()
    before = codebook(model).clone()
    model.train().encode(digits)
    model.eval().loss(digits)
    assert (codebook(model) == before).all()
    model.train().loss(digits)
    assert (codebook(model) != before).any()


def test_codes_are_used_and_stand_for_the_means(digits):
    model = build(decay=0.8)
    fit(model, digits, epochs=60, batch_size=32, learning_rate=3e-3, seed=0, progress=False)
    codes = model.codes(digits)
    assert len(codes.unique()) > 8  # half of the codebook
    vectors, indices = model.continuous(digits).flatten(0, 1), codes.flatten()
    counts = torch.bincount(indices, minlength=16)
    often = counts.argmax()
    mean = vectors[indices == often].mean(0)
    # Closer to their mean than the vectors are on average.
    spread = (vectors[indices == often] - mean).norm(dim=1).mean()
    assert (codebook(model)[often] - mean).norm() < spread


def test_levels_refine_what_the_earlier_ones_leave(digits):
    model = build(HRQVAE, num_levels=4)
    fit(model, digits, epochs=40, batch_size=32, learning_rate=3e-3, seed=0, progress=False)
    codes = model.codes(digits)
    assert codes.shape == (64, 2, 2, 4)
    torch.testing.assert_close(model.embed_codes(codes), model.encode(digits))
    vectors = model.continuous(digits)
    levels, _ = model.quantize(vectors)
    left = [(vectors - part).norm(dim=-1).mean() for part in levels.cumsum(0)]
    assert left[0] > left[1] > left[3]
    residual = vectors.flatten(0, 1)
    for level in range(4):
        nearest = torch.cdist(residual, codebook(model, level)).argmin(1)
        assert (nearest == codes[..., level].flatten()).all()
        residual = residual - codebook(model, level)[nearest]


def test_an_encoder_of_maps_needs_no_linear_layer(digits):
    networks = {
        "encoder": {"name": "conv_map", "channels": [8, 8], "features": 3, "blocks": 0},
        "decoder": {"name": "conv_map", "channels": [8, 8]},
    }
    model = build(**networks)
    assert isinstance(model.code_head, torch.nn.Identity)
    assert model.reconstruct(digits).shape == (64, 8, 8)
    # The code of a place depends on what is near it.
    changed = digits.clone()
    changed[:, -1, -1] = 1 - changed[:, -1, -1]
    same = model.continuous(changed) == model.continuous(digits)
    assert same[:, 0].all()
    assert not same[:, 3].all()


def test_a_vector_of_codes(digits):
    model = build(grid=(6,))
    assert model.codes(digits).shape == (64, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"latent_dim": 10},
            r"latent_dim=10: expected a multiple of the 4 places of grid=\(2, 2\)",
        ),
        ({"num_codes": 1}, "num_codes=1: expected an integer at least 2"),
        ({"grid": (0,)}, "grid=0: expected an integer at least 1"),
        ({"commitment": -1.0}, "commitment=-1.0: expected"),
        ({"decay": 1.0}, "decay=1.0: expected"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (
            torch.zeros(3, 4, dtype=torch.int64),
            r"codes has shape \(3, 4\): expected \(batch, 2, 2\)",
        ),
        (torch.full((3, 2, 2), 16), "codes range from 16 to 16: expected 0 to 15"),
        (torch.full((3, 2, 2), -1), "codes range from -1 to -1"),
        (torch.zeros(3, 2, 2), "codes is torch.float32: expected torch.int64"),
    ],
)
def test_bad_codes_are_refused(codes, message):
    with pytest.raises(DataError, match=message):
        build().embed_codes(codes)


def test_the_codebook_follows_samples_by_their_weights():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.rand(32, 8, 8, generator=generator), (torch.arange(32) < 20) * 1.6
    codebooks = []
    for others in (x, x.flip(0)):
        torch.manual_seed(0)
        model = VQVAE((8, 8), 8, num_codes=4, grid=(2, 2), decay=0.5).train()
        before = model.quantizer.codebooks.clone()
        torch.manual_seed(1)
        model.loss(torch.cat([x[:20], others[20:]]), weight=weight)
        codebooks.append(model.quantizer.codebooks)
        assert (codebooks[-1] != before).any()
    assert (codebooks[0] == codebooks[1]).all()
