/** Which fulfillment an event works on, and which way it goes. Pure. */

/** The states of Vendure's default process, in the order in which a delivery passes them. */
const PATH = ['Created', 'Pending', 'Shipped', 'Delivered'] as const;

/** Where events take a fulfillment. */
export type Target = 'Pending' | 'Shipped' | 'Delivered';

/**
 * The states to pass from `state` to `target`, in order; none when it is there or beyond. `undefined`: there is no way, as
 * from Cancelled, or from a state of the shop's own.
 *
 * Events that never came are made up for: Delivered after Pending passes Shipped.
 */
export function wayTo(state: string, target: Target): string[] | undefined {
    const from = PATH.indexOf(state as (typeof PATH)[number]);
    if (from < 0) {
        return undefined;
    }
    return PATH.slice(from + 1, PATH.indexOf(target) + 1);
}

/** What is to be done with the fulfillment of an earlier assignment when a driver has the order. */
export type Reuse = 'keep' | 'replace' | 'create';

/**
 * @param state of the fulfillment; absent when there is none
 * @param ended whether the delivery had ended (failed or cancelled) and was tried again by an operator
 */
export function reuse(state: string | undefined, ended: boolean): Reuse {
    if (state === undefined || state === 'Cancelled') {
        return 'create';
    }
    // Goods that left once and came back leave again: under a fulfillment of their own.
    return ended && state === 'Shipped' ? 'replace' : 'keep';
}

/** The quantities that no living fulfillment holds. */
export function unfulfilledLines<Id>(
    lines: ReadonlyArray<{ id: Id; quantity: number }>,
    fulfilled: ReadonlyArray<{ orderLineId: Id; quantity: number }>,
): Array<{ orderLineId: Id; quantity: number }> {
    return lines
        .map(({ id, quantity }) => {
            const taken = fulfilled.filter(one => String(one.orderLineId) === String(id));
            return { orderLineId: id, quantity: quantity - taken.reduce((sum, one) => sum + one.quantity, 0) };
        })
        .filter(line => line.quantity > 0);
}
