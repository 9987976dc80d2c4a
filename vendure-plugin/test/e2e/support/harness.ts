/** The one world of a run, which all cases share: to start it takes longer than any of them. */
import { World } from './world';

export let world: World;

export async function startWorld(): Promise<void> {
    world = await World.start();
}
