/** Where Vendure's logger says that a line comes from. */
export const LOGGER_CONTEXT = 'DriverTrackerPlugin';

/** The provider of the resolved options. */
export const DRIVER_TRACKER_OPTIONS = Symbol('DRIVER_TRACKER_OPTIONS');

/** Where driver-tracker posts its events (`VENDURE_EVENTS_URL` there), below the server's address. */
export const EVENTS_PATH = 'driver-tracker/events';

/** The code of the fulfillment handler. */
export const FULFILLMENT_HANDLER_CODE = 'driver-tracker';
