import numpy as np
import torch

from recsys_mtl.config.source import SimulatorSource
from recsys_mtl.data.fatigue import fatigue_survival
from recsys_mtl.data.simulator import Simulator
from recsys_mtl.evaluate.survival import KaplanMeier, Observed
from recsys_mtl.model.heads import SurvivalHead


def test_fatigue_follows_its_true_rate():
    spec = SimulatorSource(kind="simulator", rows=40_000, num_users=400)
    rows = Simulator(spec).chunk(0)
    rate_R = rows["true.fatigue_rate"].to_numpy()
    event_R = rows["fatigue_event"].to_numpy() == 1
    seen = Observed(rows["fatigue_s"].to_numpy().astype(np.float64), event_R)
    assert 0.4 < event_R.mean() < 0.9
    times = np.array([20.0, 60.0, 150.0])
    for group in np.array_split(np.argsort(rate_R), 4):
        part = Observed(seen.time_B[group], seen.event_B[group])
        true = fatigue_survival(rate_R[group], times).mean(axis=0)
        np.testing.assert_allclose(KaplanMeier.of(part).at(times), true, atol=0.02)


def test_a_survival_head_recovers_the_hazards_of_fatigue():
    spec = SimulatorSource(kind="simulator", rows=40_000, num_users=400)
    rows = Simulator(spec).chunk(0)
    time_R = rows["fatigue_s"].to_numpy()
    label_R = np.where(rows["fatigue_event"].to_numpy() == 1, time_R, -time_R)
    rate_R = rows["true.fatigue_rate"].to_numpy()
    edges = (15.0, 30.0, 50.0, 75.0, 100.0, 130.0, 170.0, 220.0)
    head = SurvivalHead(edges, [0.1] * len(edges))
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(1, 16), torch.nn.Tanh(), torch.nn.Linear(16, len(edges))
    )
    input_R1 = torch.from_numpy(np.log(rate_R)[:, None] + 5)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=60)

    def closure():
        optimizer.zero_grad()
        loss = head.loss(net(input_R1), torch.from_numpy(label_R)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    share = fatigue_survival(rate_R, [0.0, *edges])
    true_RJ = 1 - share[:, 1:] / share[:, :-1]
    with torch.no_grad():
        error_RJ = net(input_R1).sigmoid().numpy() - true_RJ
    # Where hardly anybody is left, there is nothing to learn from.
    assert np.average(np.abs(error_RJ), weights=share[:, :-1]) < 0.02
